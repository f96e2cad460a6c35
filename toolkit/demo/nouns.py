"""List the nouns of the toy language by kind.

A line reads `english | italian | spanish | french`, with the gender, `m` or `f`. Plurals follow
rules; a plural that the rules would get wrong is written out after a slash.
"""

NOUN_TABLE = {
    "food": """
apple | mela f | manzana f | pomme f
orange | arancia/arance f | naranja f | orange f
lemon | limone m | limón m | citron m
banana | banana f | plátano m | banane f
pear | pera f | pera f | poire f
strawberry | fragola f | fresa f | fraise f
cherry | ciliegia/ciliegie f | cereza f | cerise f
tomato/tomatoes | pomodoro m | tomate m | tomate f
potato/potatoes | patata f | patata f | pomme de terre/pommes de terre f
carrot | carota f | zanahoria f | carotte f
onion | cipolla f | cebolla f | oignon m
sandwich | panino m | bocadillo m | sandwich m
cake | torta f | tarta f | gâteau m
soup | zuppa f | sopa f | soupe f
salad | insalata f | ensalada f | salade f
pizza | pizza f | pizza f | pizza f
cookie | biscotto m | galleta f | biscuit m""",
    "mass food": """
bread | pane m | pan m | pain m
rice | riso m | arroz m | riz m
cheese | formaggio m | queso m | fromage m
chocolate | cioccolato m | chocolate m | chocolat m
meat | carne f | carne f | viande f
sugar | zucchero m | azúcar m | sucre m
butter | burro m | mantequilla f | beurre m
honey | miele m | miel f | miel m""",
    "mass drink": """
water | acqua f | agua f | eau f
milk | latte m | leche f | lait m
wine | vino m | vino m | vin m
juice | succo m | zumo m | jus m""",
    "drink": """
coffee | caffè m | café m | café m
tea | tè m | té m | thé m
beer | birra f | cerveza f | bière f""",
    "text": """
book | libro m | libro m | livre m
newspaper | giornale m | periódico m | journal m
magazine | rivista f | revista f | magazine m
letter | lettera f | carta f | lettre f
story | storia f | historia f | histoire f
message | messaggio m | mensaje m | message m
page | pagina f | página f | page f
word | parola f | palabra f | mot m
question | domanda f | pregunta f | question f
novel | romanzo m | novela f | roman m
poem | poesia f | poema m | poème m
sentence | frase f | frase f | phrase f
lesson | lezione f | lección f | leçon f
exercise | esercizio m | ejercicio m | exercice m
report | rapporto m | informe m | rapport m
note | nota f | nota f | note f
list | lista f | lista f | liste f""",
    "thing": """
key | chiave f | llave f | clé f
pen | penna f | bolígrafo m | stylo m
pencil | matita f | lápiz m | crayon m
table | tavolo m | mesa f | table f
chair | sedia f | silla f | chaise f
bed | letto m | cama f | lit m
lamp | lampada f | lámpara f | lampe f
phone | telefono m | teléfono m | téléphone m
computer | computer/computer m | ordenador m | ordinateur m
clock | orologio m | reloj m | horloge f
mirror | specchio m | espejo m | miroir m
bottle | bottiglia f | botella f | bouteille f
glass | bicchiere m | vaso m | verre m
cup | tazza f | taza f | tasse f
plate | piatto m | plato m | assiette f
knife/knives | coltello m | cuchillo m | couteau m
spoon | cucchiaio m | cuchara f | cuillère f
fork | forchetta f | tenedor m | fourchette f
box | scatola f | caja f | boîte f
bag | borsa f | bolsa f | sac m
umbrella | ombrello m | paraguas/paraguas m | parapluie m
gift | regalo m | regalo m | cadeau m
toy | giocattolo m | juguete m | jouet m
ball | palla f | pelota f | balle f
guitar | chitarra f | guitarra f | guitare f
picture | quadro m | cuadro m | tableau m
photo | foto/foto f | foto f | photo f
map | mappa f | mapa m | carte f
ticket | biglietto m | billete m | billet m
flower | fiore m | flor f | fleur f
window | finestra f | ventana f | fenêtre f
door | porta f | puerta f | porte f
tool | attrezzo m | herramienta f | outil m
instrument | strumento m | instrumento m | instrument m
screen | schermo m | pantalla f | écran m
backpack | zaino m | mochila f | sac à dos/sacs à dos m""",
    "vehicle": """
bicycle | bicicletta f | bicicleta f | vélo m
car | macchina f | coche m | voiture f
train | treno m | tren m | train m
bus | autobus/autobus m | autobús/autobuses m | bus m
boat | barca f | barco m | bateau m
plane | aereo m | avión m | avion m""",
    "clothes": """
shoe | scarpa f | zapato m | chaussure f
shirt | camicia/camicie f | camisa f | chemise f
hat | cappello m | sombrero m | chapeau m
coat | cappotto m | abrigo m | manteau m
dress | vestito m | vestido m | robe f
skirt | gonna f | falda f | jupe f
jacket | giacca f | chaqueta f | veste f
sock | calzino m | calcetín m | chaussette f
glove | guanto m | guante m | gant m
scarf/scarves | sciarpa f | bufanda f | écharpe f
ring | anello m | anillo m | bague f""",
    "idea": """
mistake | errore m | error m | erreur f
problem | problema m | problema m | problème m
idea | idea f | idea f | idée f
song | canzone f | canción f | chanson f
movie | film/film m | película f | film m
game | gioco m | juego m | jeu m
project | progetto m | proyecto m | projet m
secret | segreto m | secreto m | secret m""",
    "place": """
house | casa f | casa f | maison f
school | scuola f | escuela f | école f
garden | giardino m | jardín m | jardin m
kitchen | cucina f | cocina f | cuisine f
room | stanza f | habitación f | chambre f
city | città f | ciudad f | ville f
village | villaggio m | pueblo m | village m
shop | negozio m | tienda f | magasin m
market | mercato m | mercado m | marché m
restaurant | ristorante m | restaurante m | restaurant m
hotel | hotel/hotel m | hotel m | hôtel m
museum | museo m | museo m | musée m
church | chiesa f | iglesia f | église f
hospital | ospedale m | hospital m | hôpital m
station | stazione f | estación f | gare f
park | parco m | parque m | parc m
library | biblioteca f | biblioteca f | bibliothèque f
office | ufficio m | oficina f | bureau m
bank | banca f | banco m | banque f
airport | aeroporto m | aeropuerto m | aéroport m
theatre | teatro m | teatro m | théâtre m
farm | fattoria f | granja f | ferme f
square | piazza f | plaza f | place f""",
    "nature": """
street | strada f | calle f | rue f
bridge | ponte m | puente m | pont m
beach | spiaggia/spiagge f | playa f | plage f
lake | lago m | lago m | lac m
river | fiume m | río m | rivière f
mountain | montagna f | montaña f | montagne f
sea | mare m | mar m | mer f
island | isola f | isla f | île f
tree | albero m | árbol m | arbre m
wall | muro m | pared f | mur m""",
    "animal": """
cat | gatto m | gato m | chat m
dog | cane m | perro m | chien m
horse | cavallo m | caballo m | cheval m
bird | uccello m | pájaro m | oiseau m
cow | mucca f | vaca f | vache f
rabbit | coniglio m | conejo m | lapin m
lion | leone m | león m | lion m
elephant | elefante m | elefante m | éléphant m
butterfly | farfalla f | mariposa f | papillon m
snake | serpente m | serpiente f | serpent m
bear | orso m | oso m | ours m
spider | ragno m | araña f | araignée f""",
    "human": """
friend | amico/amici m | amigo m | ami m
teacher | insegnante m | profesor m | professeur m
doctor | medico/medici m | médico m | médecin m
boy | ragazzo m | chico m | garçon m
girl | ragazza f | chica f | fille f
child/children | bambino m | niño m | enfant m
man/men | uomo/uomini m | hombre m | homme m
woman/women | donna f | mujer f | femme f
student | studente m | estudiante m | étudiant m
neighbour | vicino m | vecino m | voisin m
writer | scrittore m | escritor m | écrivain m
engineer | ingegnere m | ingeniero m | ingénieur m
nurse | infermiera f | enfermera f | infirmière f
lawyer | avvocato m | abogado m | avocat m
waiter | cameriere m | camarero m | serveur m
queen | regina f | reina f | reine f
king | re/re m | rey/reyes m | roi m""",
    "family": """
mother | madre f | madre f | mère f
father | padre m | padre m | père m
brother | fratello m | hermano m | frère m
sister | sorella f | hermana f | sœur f
son | figlio m | hijo m | fils m
daughter | figlia f | hija f | fille f
uncle | zio/zii m | tío m | oncle m
aunt | zia f | tía f | tante f
grandfather | nonno m | abuelo m | grand-père/grands-pères m
grandmother | nonna f | abuela f | grand-mère/grands-mères f
cousin | cugino m | primo m | cousin m
husband | marito m | marido m | mari m
wife/wives | moglie/mogli f | esposa f | femme f""",
}
