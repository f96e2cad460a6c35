"""List the adjectives of the toy language by kind.

A line reads `english | italian | spanish | french`, in the masculine singular. Agreement follows
rules; where they would be wrong, masculine and feminine are written out, or all four forms.
"""

ADJECTIVE_TABLE = {
    "colour": """
red | rosso | rojo | rouge
black | nero | negro | noir
white | bianco | blanco | blanc/blanche
green | verde | verde | vert
yellow | giallo | amarillo | jaune
grey | grigio | gris | gris
blue | blu/blu/blu/blu | azul | bleu/bleue/bleus/bleues""",
    "thing": """
big | grande | grande | grand
small | piccolo | pequeño | petit
new | nuovo | nuevo | nouveau/nouvelle
beautiful | bello | hermoso | beau/belle
good | buono | bueno | bon/bonne
bad | cattivo | malo | mauvais
ugly | brutto | feo | laid
strange | strano | extraño | étrange
perfect | perfetto | perfecto | parfait
expensive | costoso | caro | cher""",
    "object": """
heavy | pesante | pesado | lourd
light | leggero | ligero | léger
modern | moderno | moderno | moderne
round | rotondo | redondo | rond
useful | utile | útil | utile""",
    "idea": """
easy | facile | fácil | facile
difficult | difficile | difícil | difficile
long | lungo | largo | long/longue
short | corto | corto | court
important | importante | importante | important
interesting | interessante | interesante | intéressant
boring | noioso | aburrido | ennuyeux
simple | semplice | simple | simple""",
    "person": """
old | vecchio | viejo | vieux/vieille
young | giovane | joven/joven/jóvenes/jóvenes | jeune
famous | famoso | famoso | célèbre
rich | ricco | rico | riche
poor | povero | pobre | pauvre
strong | forte | fuerte | fort
intelligent | intelligente | inteligente | intelligent
kind | gentile | amable | gentil/gentille
funny | divertente | divertido | drôle
elegant | elegante | elegante | élégant
slow | lento | lento | lent
fast | veloce | rápido | rapide
dangerous | pericoloso | peligroso | dangereux""",
    "mood": """
tired | stanco | cansado | fatigué
happy | felice | feliz | heureux
sad | triste | triste | triste
sick | malato | enfermo | malade
busy | occupato | ocupado | occupé
worried | preoccupato | preocupado | inquiet/inquiète
alone | solo | solo | seul
angry | arrabbiato | enfadado | fâché
nervous | nervoso | nervioso | nerveux
calm | calmo | tranquilo | calme
ready | pronto | listo | prêt
awake | sveglio | despierto | réveillé""",
    "state": """
dirty | sporco | sucio | sale
broken | rotto | roto | cassé
closed | chiuso | cerrado | fermé
empty | vuoto | vacío | vide
full | pieno | lleno | plein""",
}
