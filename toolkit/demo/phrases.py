"""List the fixed pieces of sentences: pronouns, names, numbers, times, idioms, set phrases."""

from toolkit.demo.inflection import read_rows

PRONOUNS = read_rows("""
I | io | yo | je
you | tu | tú | tu
he | lui | él | il
she | lei | ella | elle
we | noi | nosotros | nous
they | loro | ellos | ils""")

# Names stay as they are in every language.
WOMEN = ["Anna", "Maria", "Laura", "Emma", "Sara", "Lucy"]
MEN = ["Marco", "Paul", "David", "Tom", "Leo", "Peter"]

NAME_OPENINGS = read_rows("""
my name is | il mio nome è | mi nombre es | mon nom est
your name is | il tuo nome è | tu nombre es | ton nom est
his name is | il suo nome è | su nombre es | son nom est
her name is | il suo nome è | su nombre es | son nom est""")

NUMBERS = read_rows("""
two | due | dos | deux
three | tre | tres | trois
four | quattro | cuatro | quatre
five | cinque | cinco | cinq
six | sei | seis | six
seven | sette | siete | sept
eight | otto | ocho | huit
nine | nove | nueve | neuf
ten | dieci | diez | dix
twelve | dodici | doce | douze
fifteen | quindici | quince | quinze
twenty | venti | veinte | vingt
thirty | trenta | treinta | trente
forty | quaranta | cuarenta | quarante
fifty | cinquanta | cincuenta | cinquante
sixty | sessanta | sesenta | soixante
one hundred | cento | cien | cent""")

FREQUENCIES = read_rows("""
always | sempre | siempre | toujours
often | spesso | a menudo | souvent
sometimes | a volte | a veces | parfois
rarely | raramente | raramente | rarement
never | mai | nunca | jamais""")

MANNERS = read_rows("""
well | bene | bien | bien
badly | male | mal | mal
slowly | lentamente | lentamente | lentement
quickly | rapidamente | rápidamente | rapidement
silently | in silenzio | en silencio | en silence
a lot | molto | mucho | beaucoup""")

TIMES = {
    "present": read_rows("""
now | adesso | ahora | maintenant
today | oggi | hoy | aujourd'hui
every day | ogni giorno | cada día | chaque jour
every week | ogni settimana | cada semana | chaque semaine
every year | ogni anno | cada año | chaque année
in the morning | la mattina | por la mañana | le matin
in the evening | la sera | por la tarde | le soir
at night | di notte | de noche | la nuit
in summer | in estate | en verano | en été
in winter | in inverno | en invierno | en hiver"""),
    "past": read_rows("""
yesterday | ieri | ayer | hier
last night | ieri sera | anoche | hier soir
this morning | stamattina | esta mañana | ce matin
last week | la settimana scorsa | la semana pasada | la semaine dernière
last month | il mese scorso | el mes pasado | le mois dernier
last year | l'anno scorso | el año pasado | l'année dernière
two days ago | due giorni fa | hace dos días | il y a deux jours
an hour ago | un'ora fa | hace una hora | il y a une heure
last summer | l'estate scorsa | el verano pasado | l'été dernier"""),
    "future": read_rows("""
tomorrow | domani | mañana | demain
tonight | stasera | esta noche | ce soir
soon | presto | pronto | bientôt
later | più tardi | más tarde | plus tard
next week | la settimana prossima | la próxima semana | la semaine prochaine
next month | il mese prossimo | el próximo mes | le mois prochain
next year | l'anno prossimo | el próximo año | l'année prochaine
in an hour | tra un'ora | en una hora | dans une heure
in three days | tra tre giorni | en tres días | dans trois jours
on Monday | lunedì | el lunes | lundi
on Tuesday | martedì | el martes | mardi
on Wednesday | mercoledì | el miércoles | mercredi
on Thursday | giovedì | el jueves | jeudi
on Friday | venerdì | el viernes | vendredi
on Saturday | sabato | el sábado | samedi
on Sunday | domenica | el domingo | dimanche"""),
}

# What stands before a noun phrase; articles melt into a final "a", "da", "in", "su", "de" or "à".
PREPOSITIONS = read_rows("""
in | in | en | dans
near | vicino a | cerca de | près de
behind | dietro | detrás de | derrière
in front of | davanti a | delante de | devant
on | su | sobre | sur
under | sotto | debajo de | sous""")
TO = read_rows("to | a | a | à")[0]
FROM = read_rows("from | da | de | de")[0]
WITH = read_rows("with | con | con | avec")[0]
WITHOUT = read_rows("without | senza | sin | sans")[0]

# What one "is" in English and "has" in the other languages.
SENSATIONS = read_rows("""
hungry | fame | hambre | faim
thirsty | sete | sed | soif
cold | freddo | frío | froid
hot | caldo | calor | chaud
sleepy | sonno | sueño | sommeil
afraid | paura | miedo | peur
right | ragione | razón | raison""")

SET_PHRASES = read_rows("""
Good morning | Buongiorno | Buenos días | Bonjour
Good evening | Buonasera | Buenas tardes | Bonsoir
Good night | Buonanotte | Buenas noches | Bonne nuit
Hello | Ciao | Hola | Salut
Goodbye | Arrivederci | Adiós | Au revoir
See you tomorrow | A domani | Hasta mañana | À demain
See you soon | A presto | Hasta pronto | À bientôt
Thank you | Grazie | Gracias | Merci
Thank you very much | Molte grazie | Muchas gracias | Merci beaucoup
You are welcome | Prego | De nada | De rien
Please | Per favore | Por favor | S'il te plaît
Excuse me | Mi scusi | Disculpe | Excusez-moi
I am sorry | Mi dispiace | Lo siento | Je suis désolé
Yes | Sì | Sí | Oui
No | No | No | Non
Maybe | Forse | Quizás | Peut-être
Of course | Certo | Claro | Bien sûr
Welcome | Benvenuto | Bienvenido | Bienvenue
Good luck | Buona fortuna | Buena suerte | Bonne chance
Happy birthday | Buon compleanno | Feliz cumpleaños | Joyeux anniversaire
Merry Christmas | Buon Natale | Feliz Navidad | Joyeux Noël
Enjoy your meal | Buon appetito | Buen provecho | Bon appétit
How are you? | Come stai? | ¿Cómo estás? | Comment vas-tu ?
What is your name? | Come ti chiami? | ¿Cómo te llamas? | Comment t'appelles-tu ?
What time is it? | Che ore sono? | ¿Qué hora es? | Quelle heure est-il ?
Where are you from? | Di dove sei? | ¿De dónde eres? | D'où viens-tu ?
I do not know | Io non lo so | Yo no lo sé | Je ne sais pas
I do not understand | Io non capisco | Yo no comprendo | Je ne comprends pas
I love you | Io ti amo | Yo te amo | Je t'aime
I need help | Io ho bisogno di aiuto | Yo necesito ayuda | J'ai besoin d'aide
Nice to meet you | Piacere di conoscerti | Encantado de conocerte | Ravi de te rencontrer
The weather is nice | Il tempo è bello | Hace buen tiempo | Il fait beau
It is raining | Sta piovendo | Está lloviendo | Il pleut
It is late | È tardi | Es tarde | Il est tard
It is cold today | Oggi fa freddo | Hoy hace frío | Il fait froid aujourd'hui
Hello world | Ciao mondo | Hola mundo | Bonjour le monde""")
