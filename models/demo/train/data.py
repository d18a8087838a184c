"""The demo model's world: every question it can be asked and the one answer each has.

A *kind* is a family of questions. It has items (2 and 2; France), wordings (`ask`), one canonical answer (`say`) and a
few other true ways of putting it (`also`). Training shows the canonical answer four times in five: greedy decoding
then always gives it, while sampling from the model finds other sensible sentences, as with a real language model.

What is held out, and never shown in training, whatever the punctuation or the system prompt:
- split "item":    whole items in every wording (a pair of numbers in both orders, a word to spell);
- split "wording": for each item, some of the wordings (each wording is seen with other items).

Everything is a function of SEED; nothing is read from outside this file.
"""
import itertools
import random
import re
from dataclasses import dataclass

SEED = 20240607
CANONICAL_SHARE = 0.8
SYSTEM_SHARE = 0.06
SYSTEMS = [
    "You are a helpful assistant.",
    "You are Demo, a small language model.",
    "Answer in one short sentence.",
    "Be brief and correct.",
    "You answer simple questions.",
]


@dataclass
class Item:
    key: str            # identity for the split
    fields: dict        # what the templates may use
    say: str            # the canonical answer
    also: list          # other true answers, training only
    pin: bool = False   # never held out


@dataclass
class Kind:
    name: str
    split: str          # "item" or "wording"
    weight: float       # share of the training text
    ask: list
    items: list
    hold: float = 0.0   # split "item": share of keys held out
    hold_n: int = 2     # split "wording": wordings held out for each item


def cap(s):
    return s[0].upper() + s[1:]


# ---------------------------------------------------------------- numbers
def sums():
    items = []
    for a, b in itertools.product(range(50), repeat=2):
        c = a + b
        items.append(Item(f"{min(a, b)}+{max(a, b)}", dict(a=a, b=b), f"{a} + {b} is {c}.",
                          [f"{a} plus {b} is {c}.", f"The sum of {a} and {b} is {c}.", f"The answer is {c}."],
                          pin=(a, b) == (2, 2)))
    ask = ["What is {a}+{b}?", "What is {a} + {b}?", "What is {a} plus {b}?", "How much is {a} + {b}?", "How much is {a} plus {b}?",
           "Add {a} and {b}.", "What is the sum of {a} and {b}?", "Calculate {a} + {b}.", "{a} + {b} = ?", "{a}+{b}",
           "Can you add {a} and {b}?", "Tell me what {a} + {b} is.", "What do you get when you add {a} and {b}?"]
    return Kind("sum", "item", 5.0, ask, items, hold=0.1)


def differences():
    items = []
    for a, b in itertools.product(range(50), repeat=2):
        if b <= a:
            c = a - b
            items.append(Item(f"{a}-{b}", dict(a=a, b=b), f"{a} - {b} is {c}.",
                              [f"{a} minus {b} is {c}.", f"The answer is {c}."]))
    ask = ["What is {a}-{b}?", "What is {a} - {b}?", "What is {a} minus {b}?", "How much is {a} - {b}?", "How much is {a} minus {b}?",
           "Subtract {b} from {a}.", "Take {b} away from {a}.", "Calculate {a} - {b}.", "{a} - {b} = ?", "{a}-{b}",
           "Can you subtract {b} from {a}?", "Tell me what {a} - {b} is.", "What is left when you take {b} from {a}?"]
    return Kind("difference", "item", 5.0, ask, items, hold=0.1)


def comparisons():
    items = []
    for a, b in itertools.permutations(range(50), 2):
        hi, lo = max(a, b), min(a, b)
        items.append(Item(f"{lo}<{hi}", dict(a=a, b=b), f"{hi} is larger than {lo}.",
                          [f"The larger number is {hi}.", f"{lo} is smaller than {hi}."]))
    ask = ["Which is larger, {a} or {b}?", "Which is bigger, {a} or {b}?", "Which number is larger, {a} or {b}?", "What is larger, {a} or {b}?",
           "Compare {a} and {b}.", "Is {a} larger than {b}?", "Which of {a} and {b} is larger?", "Which of {a} and {b} is the bigger number?",
           "Tell me which is larger, {a} or {b}."]
    return Kind("compare", "item", 1.5, ask, items, hold=0.1)


def neighbors():
    items = []
    for n in range(1, 99):
        for word, other, m in (("after", "before", n + 1), ("before", "after", n - 1)):
            items.append(Item(f"{word}{n}", dict(n=n, w=word, f="follows" if word == "after" else "precedes"),
                              f"The number {word} {n} is {m}.", [f"{m} comes {word} {n}.", f"It is {m}."]))
    ask = ["What number comes {w} {n}?", "Which number comes {w} {n}?", "What comes {w} {n}?", "What is the number {w} {n}?",
           "Tell me the number {w} {n}.", "Name the number {w} {n}.", "Which number {f} {n}?", "What number is right {w} {n}?",
           "Do you know the number {w} {n}?", "What number {f} {n}?"]
    return Kind("neighbor", "item", 1.6, ask, items, hold=0.12)


def counting():
    items = []
    for a in range(0, 41):
        for n in range(3, 8):
            b = a + n - 1
            seq = ", ".join(str(i) for i in range(a, b + 1))
            items.append(Item(f"{a}..{b}", dict(a=a, b=b, n=n), f"{seq}.", []))
    ask = ["Count from {a} to {b}.", "Please count from {a} to {b}.", "Can you count from {a} to {b}?", "Count up from {a} to {b}.",
           "List the numbers from {a} to {b}.", "Say the numbers from {a} to {b}.", "What are the numbers from {a} to {b}?",
           "Name all numbers from {a} to {b}.", "Start at {a} and count to {b}."]
    return Kind("count", "item", 1.6, ask, items, hold=0.15)


# ---------------------------------------------------------------- facts
CAPITALS = """France Paris|Germany Berlin|Italy Rome|Spain Madrid|Portugal Lisbon|Austria Vienna|Poland Warsaw|Greece Athens|Norway Oslo
Sweden Stockholm|Finland Helsinki|Denmark Copenhagen|Ireland Dublin|Belgium Brussels|Hungary Budapest|Russia Moscow|Turkey Ankara
Egypt Cairo|Kenya Nairobi|Japan Tokyo|China Beijing|India New_Delhi|Thailand Bangkok|Vietnam Hanoi|Australia Canberra|Canada Ottawa
Mexico Mexico_City|Cuba Havana|Peru Lima|Chile Santiago|Argentina Buenos_Aires|Brazil Brasilia|Iceland Reykjavik|Romania Bucharest
Bulgaria Sofia|Croatia Zagreb|Serbia Belgrade|Ukraine Kyiv|Iran Tehran|Iraq Baghdad|Morocco Rabat|Ghana Accra|Nepal Kathmandu|Latvia Riga""".replace("\n", "|").split("|")


def capitals():
    items = []
    for line in CAPITALS:
        x, y = (s.replace("_", " ") for s in line.split(" "))
        items.append(Item(x, dict(x=x, y=y), f"The capital of {x} is {y}.", [f"{y} is the capital of {x}.", f"It is {y}."]))
    ask = ["What is the capital of {x}?", "Which city is the capital of {x}?", "Name the capital of {x}.", "Tell me the capital of {x}.",
           "What is the capital city of {x}?", "Can you name the capital of {x}?", "Do you know the capital of {x}?", "What is {x}'s capital?",
           "Which is the capital of {x}?", "The capital of {x} is what city?", "What city is the capital of {x}?"]
    return Kind("capital", "wording", 1.5, ask, items)


OPPOSITES = """hot cold|big small|up down|left right|day night|black white|open closed|fast slow|high low|old new|wet dry|hard soft|full empty
happy sad|rich poor|early late|light dark|loud quiet|strong weak|long short|thick thin|near far|good bad|first last|true false|yes no|in out
on off|push pull|win lose|love hate|start stop|buy sell|clean dirty|wide narrow|deep shallow|sweet sour|inside outside|above below
always never|heavy light_|young old_|tall short_|north south|east west|begin end|give take|sharp blunt|brave afraid|smooth rough""".replace("\n", "|").split("|")


def opposites():
    pairs = {}
    for line in OPPOSITES:
        x, y = line.split(" ")
        pairs.setdefault(x, y.rstrip("_"))
        if not y.endswith("_"):
            pairs.setdefault(y, x)
    items = [Item(x, dict(x=x, y=y), f"The opposite of {x} is {y}.", [f"It is {y}.", f"{cap(y)} is the opposite of {x}."]) for x, y in pairs.items()]
    ask = ["What is the opposite of {x}?", "Name the opposite of {x}.", "Tell me the opposite of {x}.", "What is the opposite of the word {x}?",
           "Which word is the opposite of {x}?", "What word means the opposite of {x}?", "Can you name the opposite of {x}?",
           "Do you know the opposite of {x}?", "The opposite of {x} is what?", "Give me the opposite of {x}.", "What would be the opposite of {x}?"]
    return Kind("opposite", "wording", 1.6, ask, items)


def ring(name, unit, names, weight):
    """Days and months: what comes after, what comes before."""
    items = []
    for i, x in enumerate(names):
        for w, step in (("after", 1), ("before", -1)):
            y = names[(i + step) % len(names)]
            items.append(Item(f"{w} {x}", dict(x=x, w=w, f="follows" if step == 1 else "precedes"),
                              f"The {unit} {w} {x} is {y}.", [f"{y} comes {w} {x}.", f"It is {y}."]))
    ask = [f"What {unit} comes {{w}} {{x}}?", f"Which {unit} comes {{w}} {{x}}?", f"What is the {unit} {{w}} {{x}}?", "What comes {w} {x}?",
           f"Tell me the {unit} {{w}} {{x}}.", f"Name the {unit} {{w}} {{x}}.", f"Which {unit} {{f}} {{x}}?", f"What {unit} is right {{w}} {{x}}?",
           f"Do you know the {unit} {{w}} {{x}}?", f"What {unit} {{f}} {{x}}?", f"Can you name the {unit} {{w}} {{x}}?"]
    return Kind(name, "wording", weight, ask, items, hold_n=3)


DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()

COLORS = {
    "green": "grass|a leaf|a frog|an emerald|a cucumber|a pea|broccoli|spinach|a lime|mint|moss|lettuce",
    "blue": "the sky|the sea|a sapphire|a blueberry",
    "white": "snow|milk|salt|sugar|flour|a cloud|a swan|a polar bear|ivory|chalk",
    "black": "coal|a crow|a raven|the night sky|tar|a panther|a tire",
    "red": "blood|a tomato|a strawberry|a cherry|a ruby|a stop sign|a fire truck|a raspberry|a ladybug",
    "yellow": "a banana|a lemon|a canary|a sunflower|an egg yolk|a school bus",
    "orange": "a carrot|an orange|a pumpkin|a tangerine",
    "brown": "chocolate|mud|coffee|soil|a walnut|a chestnut",
    "purple": "a plum|a violet|lavender|an eggplant|an amethyst",
    "pink": "a flamingo|a pig",
    "gray": "an elephant|ash|a dolphin|a mouse",
}


def colors():
    items = [Item(x, dict(x=x, X=cap(x)), f"{cap(x)} is {c}.", [f"The color of {x} is {c}.", f"It is {c}."]) for c, xs in COLORS.items() for x in xs.split("|")]
    ask = ["What color is {x}?", "What is the color of {x}?", "Which color is {x}?", "Tell me the color of {x}.", "What color does {x} have?",
           "Can you tell me what color {x} is?", "Do you know the color of {x}?", "Name the color of {x}.", "{X} is what color?",
           "Which color does {x} have?", "What colour is {x}?"]
    return Kind("color", "wording", 1.6, ask, items)


SOUNDS = """cow moo|cat meow|dog woof|duck quack|sheep baa|pig oink|horse neigh|lion roar|bee buzz|snake hiss|owl hoot|frog ribbit|mouse squeak
rooster cock-a-doodle-doo|wolf howl|bird tweet|goose honk|donkey hee-haw|hen cluck|crow caw|turkey gobble|pigeon coo""".replace("\n", "|").split("|")


def article(x):
    return ("an " if x[0] in "aeiou" else "a ") + x


def sounds():
    items = []
    for line in SOUNDS:
        x, y = line.split(" ")
        items.append(Item(x, dict(x=article(x), n=x, X=cap(article(x))), f"{cap(article(x))} says {y}.", [f"The {x} says {y}.", f"It says {y}."]))
    ask = ["What does {x} say?", "What sound does {x} make?", "Which sound does {x} make?", "What is the sound of {x}?", "Tell me what {x} says.",
           "What noise does {x} make?", "Do you know what {x} says?", "How does {x} sound?", "What does the {n} say?", "What sound does the {n} make?"]
    return Kind("sound", "wording", 1.0, ask, items)


CLASSES = {
    "an animal": "cat dog horse cow tiger lion bear rabbit fox mouse", "a bird": "eagle owl parrot swan penguin crow",
    "a fish": "salmon trout shark tuna", "an insect": "bee ant butterfly beetle mosquito", "a flower": "rose tulip daisy lily",
    "a tree": "oak pine birch maple", "a fruit": "apple banana pear peach mango", "a vegetable": "carrot onion potato cabbage",
    "a tool": "hammer saw drill shovel", "an instrument": "violin piano guitar flute drum trumpet", "a vehicle": "car bus truck train bicycle",
    "a shape": "circle square triangle", "a metal": "*gold *iron *silver *copper", "a planet": "*Mars *Venus *Jupiter *Saturn",
    "a sport": "*tennis *football *hockey *golf", "a language": "*French *Latin *Greek *English",
}


def classes():
    items = []
    for c, xs in CLASSES.items():
        for x in xs.split():
            x = x[1:] if x[0] == "*" else article(x)
            items.append(Item(x, dict(x=x, X=cap(x)), f"{cap(x)} is {c}.", [f"It is {c}."]))
    ask = ["What is {x}?", "What kind of thing is {x}?", "What sort of thing is {x}?", "Tell me what {x} is.", "Can you tell me what {x} is?",
           "Do you know what {x} is?", "Explain what {x} is.", "{X} is what?", "What would you call {x}?", "Please tell me what {x} is."]
    return Kind("class", "wording", 1.5, ask, items)


PARTS = """spider eight legs|dog four legs|bird two legs|ant six legs|cat four legs|horse four legs|bee six legs|chair four legs|octopus eight arms
triangle three sides|square four sides|hexagon six sides|pentagon five sides|octagon eight sides|cube six faces|week seven days|year twelve months
day twenty-four hours|minute sixty seconds|hour sixty minutes|car four wheels|bicycle two wheels|tricycle three wheels|hand five fingers
foot five toes|guitar six strings|violin four strings|human two eyes|snake no legs|century one hundred years|decade ten years|piano eighty-eight keys""".replace("\n", "|").split("|")


def parts():
    items = []
    for line in PARTS:
        words = line.split(" ")
        x, n, p = words[0], " ".join(words[1:-1]), words[-1]
        x = "an hour" if x == "hour" else article(x)
        items.append(Item(x + p, dict(x=x, p=p), f"{cap(x)} has {n} {p}.", [f"There are {n} {p} in {x}." if p in "days months hours seconds minutes years" else f"It has {n} {p}."]))
    ask = ["How many {p} does {x} have?", "What number of {p} does {x} have?", "Tell me how many {p} {x} has.", "Do you know how many {p} {x} has?",
           "Can you say how many {p} {x} has?", "How many {p} has {x}?", "{x} has how many {p}?", "What is the number of {p} of {x}?",
           "Say how many {p} {x} has."]
    return Kind("parts", "wording", 1.1, ask, items)


# ---------------------------------------------------------------- words
SPELL = """ant arm art bag bar bat bed bee big bin bit box boy bud bug bun bus cab can cap car cat cot cow cub cup cut dad den dig dip dog dot
dry ear eat egg elf end eye fan far fat fig fin fit fix fly fog fox fun fur gap gas gem get gum gun hat hen hid hip hit hop hot hug hut ice ink jam jar jet job jog
joy key kid kit lab lad lap leg let lid lip log lot low mad man map mat men mix mob mom mop mud mug nap net new nod nut oak oil old one owl pad pan paw pea pen pet
pie pig pin pit pod pot rag ram rat raw red rib rim rob rod rot row rub rug run sad sat saw sea set sew sip sit six sky sob son sow sub sum sun tab tag tan tap tar
tea ten tie tin tip toe ton top toy tub tug two van vet wag war wax web wet wig win wok yak yam zip zoo
ball band bank barn bell belt bird boat body bone book boot bowl cake calf camp card cave city clay coat coin cold cone cook cool corn crab crow dark deer desk dish
door drum duck dust east face farm fast film fire fish flag food foot fork frog gate gift girl goat gold hand harp head hill home hood hook horn hose idea iron
kind king kite knee lake lamb lamp land leaf lion list lock logo loud love luck lung mask meal milk mind mint moon moss nest nose note oven page palm park path pear
pipe plan pond pony pool rain rice ring road rock roof room root rope rose ruby sail salt sand seal seed shed ship shoe shop silk sink snow soap sock sofa song soup
star stem swan tail tent tile time toad tree tube tuna vase vest wall wave wind wing wolf wood wool word yard zero
apple bread chair cloud dance eagle field glass grape green heart horse house juice knife lemon light mango money month mouse music night ocean onion paper peach
piano plant plate queen quiet river robot salad sheep shell smile snake spoon stone storm sugar sweet table tiger toast train truck uncle voice watch water whale wheel world""".split()


def pseudo_words(rng, n):
    """Pronounceable made-up words: letters of real words can then be learned without the words."""
    on = "b c d f g h j k l m n p r s t v w y z bl br ch cl cr dr fl fr gl gr pl pr qu sc sh sk sl sm sn sp st str sw th tr tw wh".split()
    vo = "a e i o u a e i o u ai au aw ay ea ee ei ie oa oe oi oo ou ow oy ue ui".split()
    co = ("b d f g k l m n p r s t w x y ck ct ft ld lf lk ll lm lp lt mb mp nd ng nk nt pt rb rd rf rk rl rm rn rp rt ss sh sk sp st th tch "
          "be ce de ge ke le me ne pe re se te ve ze nce nge rse ble tle er el en on or et it y ").split(" ")
    out = set()
    while len(out) < n:
        w = rng.choice(on) + rng.choice(vo) + rng.choice(co)
        if rng.random() < 0.2:
            w += rng.choice(vo)[0] + rng.choice(["", "", "n", "r", "l", "t", "y", "d", "s"])
        if rng.random() < 0.12:
            w = rng.choice("aeiou") + w
        if 3 <= len(w) <= 6:
            out.add(w)
    return sorted(out)


def spliced_words(rng, lexicon, fake, n):
    """Beginnings and ends of words that sentences use, with something else in place of the rest: teaches the pieces such words are made of."""
    long = [w for w in lexicon if len(w) >= 4]
    out = set()
    while len(out) < n:
        w, c = rng.choice(long), rng.randint(2, 4)
        rest = rng.choice(fake)[:rng.randint(1, 3)]
        w = w[:c] + rest if rng.random() < 0.6 else rest + w[-c:]
        if 3 <= len(w) <= 6:
            out.add(w)
    return sorted(out)


def spelling(lexicon):
    rng = random.Random(SEED + 1)
    real = sorted(set(SPELL))
    fake = pseudo_words(rng, 6000)
    fake = [w for w in sorted({*fake, *spliced_words(rng, lexicon, fake, 4000)}) if w not in set(real)]
    items = []
    for w in real + fake:
        s = "-".join(w)
        items.append(Item(w, dict(x=w), f"It is spelled {s}.", [f"{cap(w)} is spelled {s}."] if w in set(real) else [], pin=(w in ("cat", "dog", "sun") or w in fake)))
    ask = ["How do you spell {x}?", "Spell {x}.", "Spell the word {x}.", "Please spell {x}.", "Can you spell {x}?", "How is {x} spelled?",
           "How is the word {x} spelled?", "Tell me how to spell {x}.", "What is the spelling of {x}?", "How do I spell {x}?", "How do you spell the word {x}?"]
    return Kind("spelling", "item", 4.0, ask, items, hold=0.15)


# ---------------------------------------------------------------- sentences
GREET = [
    # (openers, canonical, also, is a question)
    (["hello", "hi", "hey", "hi there", "hello there", "greetings"], "Hello! How can I help you?", ["Hi! How are you?", "Hello there!"], False),
    (["good morning", "a good morning to you"], "Good morning! How can I help you?", ["Good morning to you!"], False),
    (["good evening", "a good evening to you"], "Good evening! How can I help you?", ["Good evening to you!"], False),
    (["good night", "sleep well", "have a good night"], "Good night! Sleep well.", ["Sleep well!"], False),
    (["thank you", "thanks", "many thanks", "thank you very much", "thanks a lot"], "You are welcome!", ["It was a pleasure."], False),
    (["goodbye", "bye", "bye bye", "see you later", "see you soon"], "Goodbye! See you soon.", ["Bye! Have a good day."], False),
    (["how are you", "how are you today", "how do you do", "are you well"], "I am fine, thank you.", ["I am very well.", "I feel good today."], True),
    (["what is your name", "who are you", "what are you called", "can you tell me your name"], "My name is Demo.", ["I am Demo.", "You can call me Demo."], True),
    (["what can you do", "what do you know", "how can you help me"], "I can answer short questions.", ["I can add, count and spell."], True),
    (["are you a human", "are you a person", "are you a real person"], "No, I am a small language model.", ["No, I am a model."], True),
]


def greetings():
    kinds = []
    for question in (False, True):
        items = [Item(o, dict(o=o, O=cap(o)), say, list(also)) for openers, say, also, q in GREET if q == question for o in openers]
        ask = (["{O}?", "Please, {o}?", "So, {o}?", "Tell me, {o}?", "Demo, {o}?", "Well, {o}?", "And {o}?", "My friend, {o}?"] if question else
               ["{O}!", "{O}.", "{O}, Demo!", "{O}, my friend!", "{O}, friend.", "Well, {o}!", "Oh, {o}!", "And {o}!", "{O}, dear Demo."])
        kinds.append(Kind("greeting", "wording", 0.5, ask, items))
    return kinds


DESCRIBE = {
    "the sea": ["The sea is wide, deep and full of salt water.", "The sea is a large body of blue salt water."],
    "the sun": ["The sun is a bright star that warms the earth.", "The sun gives us light and heat."],
    "the moon": ["The moon is a cold, gray world that circles the earth.", "The moon shines at night."],
    "a forest": ["A forest is a quiet place with many tall trees.", "A forest is full of trees and animals."],
    "a river": ["A river is fresh water that flows to the sea.", "A river runs from the hills to the sea."],
    "a mountain": ["A mountain is high, steep and made of rock.", "A mountain is a very high hill."],
    "a desert": ["A desert is a dry land with very little rain.", "A desert is dry and often full of sand."],
    "winter": ["Winter is the cold season with short days and long nights.", "Winter often brings snow and ice."],
    "summer": ["Summer is the warm season with long, sunny days.", "Summer is warm and bright."],
    "spring": ["Spring is the season when flowers begin to grow.", "Spring brings new leaves and flowers."],
    "autumn": ["Autumn is the season when the leaves fall from the trees.", "Autumn comes between summer and winter."],
    "rain": ["Rain is water that falls from the clouds.", "Rain makes the ground wet."],
    "snow": ["Snow is soft, white ice that falls from the sky in winter.", "Snow is cold and white."],
    "the wind": ["The wind is air that moves over the land.", "The wind is moving air."],
    "a cat": ["A cat is a small, soft animal that likes to sleep.", "A cat is a pet that hunts mice."],
    "a dog": ["A dog is a loyal animal that likes to play.", "A dog is a friend of people."],
    "an elephant": ["An elephant is a huge, gray animal with a long nose.", "An elephant is the largest land animal."],
    "a bird": ["A bird is an animal with wings and feathers.", "A bird has two wings and lays eggs."],
    "a fish": ["A fish is an animal that lives and swims in water.", "A fish swims and has fins."],
    "a tree": ["A tree is a tall plant with roots, branches and leaves.", "A tree is a plant made of wood."],
    "a flower": ["A flower is the colorful part of a plant.", "A flower is often bright and smells sweet."],
    "a book": ["A book is many pages of words bound together.", "A book tells a story or teaches something."],
    "a house": ["A house is a building where people live.", "A house has walls, doors and a roof."],
    "a city": ["A city is a large, busy place with many people.", "A city has many streets and houses."],
    "a school": ["A school is a place where children learn.", "A school has teachers and children."],
    "a clock": ["A clock is a machine that shows the time.", "A clock tells us the hour."],
    "a bridge": ["A bridge carries a road over a river.", "A bridge joins two sides of a river."],
    "bread": ["Bread is a food baked from flour and water.", "Bread is a common food."],
    "ice": ["Ice is water that is frozen hard.", "Ice is cold, hard water."],
    "fire": ["Fire is hot, bright and dangerous to touch.", "Fire gives light and heat."],
    "the sky": ["The sky is the wide, blue space above us.", "The sky is high above the ground."],
    "music": ["Music is sound that is pleasant to hear.", "Music is made of notes and rhythm."],
    "a garden": ["A garden is a place where people grow plants.", "A garden has flowers and plants."],
    "an island": ["An island is land with water on all sides.", "An island lies in the water."],
}


def descriptions():
    items = [Item(x, dict(x=x), ds[0], ds[1:]) for x, ds in DESCRIBE.items()]
    ask = ["Describe {x}.", "Please describe {x}.", "Can you describe {x}?", "How would you describe {x}?", "Tell me about {x}.",
           "Tell me something about {x}.", "What can you say about {x}?", "Give a description of {x}.", "Say something about {x}.",
           "Write a sentence about {x}.", "What is {x} like?"]
    return Kind("description", "wording", 1.4, ask, items)


# ---------------------------------------------------------------- split and sampling
def words_of(ks):
    """All words of the sentences and wordings of these kinds, lower case."""
    texts = [t for k in ks for t in k.ask] + [question(k.ask[0], i) + " " + " ".join([i.say, *i.also]) for k in ks for i in k.items]
    return sorted({w for t in texts for w in re.findall("[a-z]+", t.lower())})


def kinds():
    ks = [sums(), differences(), comparisons(), neighbors(), counting(), capitals(), opposites(),
          ring("day", "day", DAYS, 0.8), ring("month", "month", MONTHS, 1.0), colors(), sounds(), classes(), parts(),
          *greetings(), descriptions()]
    return ks + [spelling(words_of(ks))]


def question(template, item):
    return cap(template.format(**item.fields))


def split():
    """-> (kinds, pools, held). pools[k] is [(item index, [wordings to train])], held[k] is [(item index, [wordings held out])]."""
    rng = random.Random(SEED)
    ks, pools, held = kinds(), [], []
    # A word that other kinds use, or the beginning of one, may be a token whose letters only its own spelling could teach: never held out.
    used = words_of([k for k in ks if k.name != "spelling"]) + ["word", "spell", "spelled", "spelling"]
    used = {w[:n] for w in used for n in range(3, len(w) + 1)}
    for k in ks:
        train, test = [], []
        every = list(range(len(k.ask)))
        if k.split == "item":
            keys = sorted({i.key for i in k.items if not i.pin})
            if k.name == "spelling":
                keys = [w for w in keys if w not in used]
                out = set(rng.sample(keys, int(len(keys) * k.hold)))
            else:
                out = set(rng.sample(keys, int(len(keys) * k.hold)))
            for n, item in enumerate(k.items):
                (test if item.key in out and not item.pin else train).append((n, every))
        else:
            for n, item in enumerate(k.items):
                out = sorted(rng.sample(every, k.hold_n))
                train.append((n, [w for w in every if w not in out]))
                test.append((n, out))
        pools.append(train)
        held.append(test)
    return ks, pools, held


def sampler(seed):
    """An endless stream of (kind, system or None, question, answer)."""
    rng = random.Random(seed)
    ks, pools, held = split()
    forbidden = {question(k.ask[w], k.items[n]).rstrip("?.!").lower() for k, test in zip(ks, held) for n, ws in test for w in ws}
    weights = [k.weight for k in ks]
    # Small numbers are asked about more than large ones, and real words more than made-up ones.
    chance = []
    for k, pool in zip(ks, pools):
        p = []
        for n, _ in pool:
            f = k.items[n].fields
            if k.name in ("sum", "difference"):
                p.append(2.0 if max(f["a"], f["b"]) <= 20 else 1.0)
            elif k.name == "spelling":
                p.append(6.0 if len(k.items[n].also) else 1.0)
            else:
                p.append(1.0)
        chance.append(list(itertools.accumulate(p)))
    while True:
        i = rng.choices(range(len(ks)), weights)[0]
        k = ks[i]
        n, ws = rng.choices(pools[i], cum_weights=chance[i])[0]
        item = k.items[n]
        q = question(k.ask[rng.choice(ws)], item)
        if q.rstrip("?.!").lower() in forbidden:   # two items may meet in one text (Hi + there)
            continue
        a = item.say if not item.also or rng.random() < CANONICAL_SHARE else rng.choice(item.also)
        u = rng.random()
        if u < 0.05:
            q = q.rstrip("?.!")
        elif u < 0.08:
            q = q[0].lower() + q[1:]
        yield k.name, (rng.choice(SYSTEMS) if rng.random() < SYSTEM_SHARE else None), q, a


def heldout(per_kind=60):
    """The held-out questions that are evaluated: [{kind, prompt, answer}], at most per_kind of each kind, all distinct."""
    rng = random.Random(SEED + 2)
    ks, pools, held = split()
    by_kind = {}
    for k, test in zip(ks, held):
        by_kind.setdefault(k.name, []).extend((question(k.ask[w], k.items[n]), k.items[n].say) for n, ws in test for w in ws)
    out = []
    for name, cases in by_kind.items():
        cases = list(dict.fromkeys(cases))
        rng.shuffle(cases)
        out += [dict(kind=name, prompt=q, answer=a) for q, a in cases[:per_kind]]
    return out


if __name__ == "__main__":
    s = sampler(0)
    for _ in range(40):
        print(next(s))
    h = heldout()
    print(len(h), {k: sum(x["kind"] == k for x in h) for k in dict.fromkeys(x["kind"] for x in h)})
    qs = {}
    for k in kinds():
        for item in k.items:
            for t in k.ask:
                q = question(t, item)
                if qs.setdefault(q, item.say) != item.say:
                    print("AMBIGUOUS", q, "|", qs[q], "|", item.say)
