"""List the verbs of the toy language; `conjugation` turns them into finite forms.

A line reads `english past | italian | spanish | french | kinds of object`. A Spanish `cerrar:ie`
names the vowel change of the stressed stem. Irregular forms stand in the tables below the verbs.
"""

# The English past is written where it is irregular; that of "read" looks like its present.
TRANSITIVE = """
eat ate | mangiare | comer | manger | food
drink drank | bere | beber | boire | drink
taste | assaggiare | probar:ue | goûter | food, drink
cook | cucinare | cocinar | cuisiner | food
prepare | preparare | preparar | préparer | food, drink
order | ordinare | pedir:i | commander | food, drink
buy bought | comprare | comprar | acheter | food, drink, thing, clothes, vehicle
sell sold | vendere | vender | vendre | food, thing, clothes, vehicle
write wrote | scrivere | escribir | écrire | text
read - | leggere | leer | lire | text
translate | tradurre | traducir | traduire | text
understand understood | capire | comprender | comprendre | text, idea
explain | spiegare | explicar | expliquer | text, idea
correct | correggere | corregir:i | corriger | text
copy | copiare | copiar | copier | text
print | stampare | imprimir | imprimer | text
sign | firmare | firmar | signer | text
send sent | mandare | enviar | envoyer | text
receive | ricevere | recibir | recevoir | text, thing
study | studiare | estudiar | étudier | text
learn | imparare | aprender | apprendre | text
forget forgot | dimenticare | olvidar | oublier | text, thing, idea, clothes
see saw | vedere | ver | voir | thing, vehicle, place, nature, animal
watch | guardare | mirar | regarder | animal, nature, idea
find found | trovare | encontrar:ue | trouver | thing, text, clothes, idea, animal
look_for | cercare | buscar | chercher | thing, text, clothes, place, animal
lose lost | perdere | perder:ie | perdre | thing, text, clothes
open | aprire | abrir | ouvrir | thing, text
close | chiudere | cerrar:ie | fermer | thing, text
clean | pulire | limpiar | nettoyer | thing, place, vehicle
wash | lavare | lavar | laver | clothes, vehicle, thing
take took | prendere | tomar | prendre | thing, vehicle, clothes
carry | portare | llevar | porter | thing, food, text
use | usare | usar | utiliser | thing, vehicle
repair | riparare | reparar | réparer | thing, vehicle
break broke | rompere | romper | casser | thing
build built | costruire | construir | construire | place, vehicle
paint | dipingere | pintar | peindre | nature, animal, place
draw drew | disegnare | dibujar | dessiner | animal, nature, thing
listen_to | ascoltare | escuchar | écouter | idea
win won | vincere | ganar | gagner | idea
finish | finire | terminar | finir | text, idea
begin began | cominciare | empezar:ie | commencer | text, idea
change | cambiare | cambiar | changer | idea, clothes, text
choose chose | scegliere | escoger | choisir | thing, clothes, text, idea, food
hide hid | nascondere | esconder | cacher | thing, text, idea
throw threw | lanciare | lanzar | lancer | thing
touch | toccare | tocar | toucher | thing, animal, clothes
visit | visitare | visitar | visiter | place, nature
have had | avere | tener | avoir | thing, vehicle, animal, clothes, idea, text
wear wore | indossare | llevar | porter | clothes
share | condividere | compartir | partager | food, text, idea
move | spostare | mover:ue | déplacer | thing, vehicle
push | spingere | empujar | pousser | thing, vehicle
pull | tirare | tirar | tirer | thing
rent | affittare | alquilar | louer | vehicle, place
drive drove | guidare | conducir | conduire | vehicle
count | contare | contar:ue | compter | animal, thing
describe | descrivere | describir | décrire | place, nature, idea, animal
imagine | immaginare | imaginar | imaginer | place, nature, idea
create | creare | crear | créer | idea, text
organize | organizzare | organizar | organiser | idea, text
check | controllare | revisar | vérifier | text, thing, vehicle
improve | migliorare | mejorar | améliorer | text, idea"""

INTRANSITIVE = """
program | programmare | programar | programmer
sleep slept | dormire | dormir:ue | dormir
work | lavorare | trabajar | travailler
travel | viaggiare | viajar | voyager
run ran | correre | correr | courir
walk | camminare | caminar | marcher
swim swam | nuotare | nadar | nager
dance | ballare | bailar | danser
sing sang | cantare | cantar | chanter
speak spoke | parlare | hablar | parler
wait | aspettare | esperar | attendre
cry | piangere | llorar | pleurer
think thought | pensare | pensar:ie | penser
dream | sognare | soñar:ue | rêver
play | giocare | jugar:ue | jouer
shout | gridare | gritar | crier
breathe | respirare | respirar | respirer
jump | saltare | saltar | sauter
whistle | fischiare | silbar | siffler
live | abitare | vivir | habiter"""

# Transitive verbs that also make sense alone: "I love cooking", "She reads".
OBJECT_OPTIONAL = (
    "eat drink cook write read translate study learn paint draw drive win clean".split()
)

# Italian and French build their past with "to be", so the participle agrees with the subject.
MOTION = """
go went | andare | ir | aller
come came | venire | venir | venir
return | tornare | volver:ue | retourner
arrive | arrivare | llegar | arriver
leave left | partire | partir | partir
enter | entrare | entrar | entrer"""

MODALS = """
can - | potere | poder | pouvoir
must - | dovere | deber | devoir
want_to - | volere | querer | vouloir"""

FEELINGS = """
love | amare | amar | aimer
hate | odiare | odiar | détester
prefer | preferire | preferir:ie | préférer
adore | adorare | adorar | adorer"""

# English verbs that double their last consonant before -ing and -ed.
ENGLISH_DOUBLING = {"forget", "begin", "win", "program", "run", "swim", "prefer", "travel"}

# A present lists I, you (singular), he or she, we, they; "-" keeps the regular form.
# infinitive: present | past participle | future stem
ITALIAN_IRREGULAR = {
    "essere": "sono sei è siamo sono | stato | sar",
    "avere": "ho hai ha abbiamo hanno | avuto | avr",
    "bere": "bevo bevi beve beviamo bevono | bevuto | berr",
    "tradurre": "traduco traduci traduce traduciamo traducono | tradotto | tradurr",
    "scegliere": "scelgo scegli sceglie scegliamo scelgono | scelto | sceglier",
    "andare": "vado vai va andiamo vanno | andato | andr",
    "venire": "vengo vieni viene veniamo vengono | venuto | verr",
    "potere": "posso puoi può possiamo possono | potuto | potr",
    "dovere": "devo devi deve dobbiamo devono | dovuto | dovr",
    "volere": "voglio vuoi vuole vogliamo vogliono | voluto | vorr",
    "vedere": "- | visto | vedr",
    "scrivere": "- | scritto | -",
    "leggere": "- | letto | -",
    "correggere": "- | corretto | -",
    "perdere": "- | perso | -",
    "aprire": "- | aperto | -",
    "chiudere": "- | chiuso | -",
    "prendere": "- | preso | -",
    "rompere": "- | rotto | -",
    "dipingere": "- | dipinto | -",
    "vincere": "- | vinto | -",
    "nascondere": "- | nascosto | -",
    "condividere": "- | condiviso | -",
    "spingere": "- | spinto | -",
    "descrivere": "- | descritto | -",
    "correre": "- | corso | -",
    "piangere": "- | pianto | -",
}
ITALIAN_ISC = {"capire", "pulire", "costruire", "finire", "preferire"}

# infinitive: present | preterite | future stem
SPANISH_IRREGULAR = {
    "ser": "soy eres es somos son | fui fuiste fue fuimos fueron | -",
    "estar": "estoy estás está estamos están | estuve estuviste estuvo estuvimos estuvieron | -",
    "tener": "tengo tienes tiene tenemos tienen | tuve tuviste tuvo tuvimos tuvieron | tendr",
    "ver": "veo ves ve vemos ven | vi viste vio vimos vieron | -",
    "ir": "voy vas va vamos van | fui fuiste fue fuimos fueron | -",
    "venir": "vengo vienes viene venimos vienen | vine viniste vino vinimos vinieron | vendr",
    "leer": "- | leí leíste leyó leímos leyeron | -",
    "traducir": "traduzco traduces traduce traducimos traducen"
    " | traduje tradujiste tradujo tradujimos tradujeron | -",
    "conducir": "conduzco conduces conduce conducimos conducen"
    " | conduje condujiste condujo condujimos condujeron | -",
    "construir": "construyo construyes construye construimos construyen"
    " | construí construiste construyó construimos construyeron | -",
    "escoger": "escojo escoges escoge escogemos escogen | - | -",
    "corregir": "corrijo corriges corrige corregimos corrigen | - | -",
    "enviar": "envío envías envía enviamos envían | - | -",
    "poder": "puedo puedes puede podemos pueden | - | podr",
    "querer": "quiero quieres quiere queremos quieren | - | querr",
}

# infinitive: present | past participle | future stem
FRENCH_IRREGULAR = {
    "être": "suis es est sommes sont | été | ser",
    "avoir": "ai as a avons ont | eu | aur",
    "boire": "bois bois boit buvons boivent | bu | boir",
    "écrire": "écris écris écrit écrivons écrivent | écrit | écrir",
    "décrire": "décris décris décrit décrivons décrivent | décrit | décrir",
    "lire": "lis lis lit lisons lisent | lu | lir",
    "traduire": "traduis traduis traduit traduisons traduisent | traduit | traduir",
    "conduire": "conduis conduis conduit conduisons conduisent | conduit | conduir",
    "construire": "construis construis construit construisons construisent | construit | construir",
    "prendre": "prends prends prend prenons prennent | pris | prendr",
    "apprendre": "apprends apprends apprend apprenons apprennent | appris | apprendr",
    "comprendre": "comprends comprends comprend comprenons comprennent | compris | comprendr",
    "recevoir": "reçois reçois reçoit recevons reçoivent | reçu | recevr",
    "voir": "vois vois voit voyons voient | vu | verr",
    "ouvrir": "ouvre ouvres ouvre ouvrons ouvrent | ouvert | ouvrir",
    "peindre": "peins peins peint peignons peignent | peint | peindr",
    "courir": "cours cours court courons courent | couru | courr",
    "dormir": "dors dors dort dormons dorment | dormi | dormir",
    "aller": "vais vas va allons vont | allé | ir",
    "venir": "viens viens vient venons viennent | venu | viendr",
    "partir": "pars pars part partons partent | parti | partir",
    "pouvoir": "peux peux peut pouvons peuvent | pu | pourr",
    "devoir": "dois dois doit devons doivent | dû | devr",
    "vouloir": "veux veux veut voulons veulent | voulu | voudr",
    "acheter": "achète achètes achète achetons achètent | acheté | achèter",
    "préférer": "préfère préfères préfère préférons préfèrent | préféré | préférer",
    "nettoyer": "nettoie nettoies nettoie nettoyons nettoient | nettoyé | nettoier",
    "envoyer": "envoie envoies envoie envoyons envoient | envoyé | enverr",
}
