"""Mixed text for the tokenizer benchmark: English, Chinese, code, numbers, emoji. Same seed, same bytes.

Words come from the lists below, in Zipf-like proportions and with affixes, so that common words repeat as in real text
and a long tail is new all the time: a cache of words helps a tokenizer as much as it would on real text, not more.
"""

import random

FUNCTION_WORDS = """
the of and to in a is that it was for on are with as his they at be this from have or by one had not but what all
were when we there can an your which their said if do will each about how up out them then she many some so these
would other into has more her two like him see time could no make than first been its who now people my made over
did down only way find use may water long little very after words called just where most know
""".split()

STEMS = """
ability absent accept account achieve acid across action address admire advance advice afford agent airport alarm
album alive almost amount anchor ancient anger animal answer apple archive argue armour arrive article artist attach
attempt autumn average awake balance ballad bamboo banana barrel basket battery beacon beauty become bedroom behave
believe belong beneath between bicycle biology bitter blanket blossom border borrow bottom boundary bracket branch
bread breathe bridge bright broken brother bucket budget buffer build burden butter button cabin camera campaign
cancel candle canvas capital captain carbon career carpet castle casual cattle caution ceiling century certain
chamber change channel chapter charge cheese cherry chicken choice circle citizen claim classic climate clinic
closet cluster coast coffee collect colony column comfort command common compare compile complex compute concept
concert conduct confirm connect consider contain context control convert copper corner correct cotton council
counter country courage cradle create credit crisis critic crystal culture curious current custom cycle damage dance
danger daughter debate decade decide declare defend degree deliver demand depend derive describe desert design
detail develop device dialog diamond differ digital dinner direct discover display distance divide doctor document
dolphin domain double dragon drawer dream drift driver during eager early earth easily eastern echo economy editor
educate effect effort eight elbow elder elect element embark emerge emotion employ enable encode endless energy
engage engine enjoy enough ensure entire envelope equal error escape essay estimate evening event every evidence
exact example exceed except excite execute exercise exist expand expect explain explore export expose extend extract
fabric factor fade family famous fancy farmer fashion father fault feather feature federal fellow festival fiction
field fifteen fight figure filter final finger finish fiscal flame flavor flight float flood flower fluid follow
foreign forest forget formal fortune forward fossil frame freedom frequent fresh friend frozen function future
galaxy gallery garden garlic gather general gentle gesture ghost giant glacier glance global glory golden govern
grace gradient grammar grant gravel gravity ground growth guard guess guide guitar habit hammer handle happen harbor
harvest hazard health hearing heaven height herald heritage hidden highway history hollow honest honor horizon
hospital hotel hover human humble hunger hunt hybrid ideal identity ignore illegal image impact import impose
improve include income index indicate infant inform inherit initial inject injury inner insect inside inspect
install instant insult intend interest invent invest island issue ivory jacket jazz jewel join journal journey judge
juice jungle junior justice kernel kettle keyboard kidney kingdom kitchen knife label labor ladder language lantern
laptop latent laugh launch lawyer layer leader league leather lecture legend lemon letter level liberty library
license limit linear liquid listen little living local logic lonely lumber lunch machine magic magnet major manage
mango manner manual marble margin marine market marriage marvel master matrix matter meadow measure media member
memory mention mercy merge metal meteor method middle midnight military mineral minute mirror mission mixture mobile
model modern modest module moment monitor monkey month moral morning mother motion mountain museum music mutual
mystery narrow nation native nature nearby needle neglect neighbor nephew network neural neutral noble normal north
notice novel nuclear number object oblige observe obtain obvious occupy ocean office often olive onion opera opinion
oppose option orange orbit orchard order organ origin orphan other outcome output oxygen oyster packet palace panel
parallel parent parking partner passage patient pattern payment peanut pencil people pepper perfect perform permit
person phrase physics piano picture pigeon pillow pilot pioneer planet plastic platform player please pledge plenty
pocket poem polite portion position possess potato powder practice praise predict prefer prepare present prevent
primary prince print prison private problem process produce profile program project promise prompt protein proud
provide public pumpkin purple purpose puzzle quality quarter question quick quiet quote rabbit radio random ranch
rapid rather reach reader reason rebel recall receive record recover reduce refer reflect refuse region regret
regular reject relate release rely remain remark remember remote remove render repair repeat replace report request
rescue resist resolve resource respond result retire return reveal review reward rhythm ribbon rifle river rocket
romance rough route royal rubber rural saddle salad salmon sample satisfy sausage scale scatter schedule scheme
scholar science scissors scratch screen script season second secret section secure segment select senior sentence
separate sequence serious service session settle seven shadow shallow shape share shelter sheriff shield shift
shiver shoulder shower shrink sibling signal silent silver similar simple single sister sketch skill slender slogan
smooth soccer social soldier solid solve sort source southern space spare special sphere spider spirit split sponsor
spread spring square stable stadium standard station steady stereo stone storage story strange stream street strike
strong struggle student studio submit subtle success sudden suffer sugar suggest summer sunset supply support
surface surprise surround survey suspect sustain swallow sweater swim symbol symptom system tackle talent target
teach temple tenant tensor terrain theory thermal thirty thought thread thunder ticket timber tissue title tobacco
together tomato tongue topic tornado total tourist toward tower tracker trade traffic train transfer travel treasure
treaty tribe trigger triumph trophy trouble truly trust tunnel turtle twelve twenty twist typical umbrella unable
uncle under uniform union unique universe update upper urban useful usual utility vacant valley valve vanish vapor
vector vehicle velvet vendor venture verify version vessel victory village vintage violin virtue virus vision visit
vivid vocal volcano volume voyage wagon walnut wander warrior wealth weapon weather weekend weird welcome western
whisper width willow window winter wisdom witness wonder worker worth wound wrist writer yellow yesterday zebra zone
""".split()

PREFIXES = "un re pre over inter sub non anti micro super trans multi de mis".split()
SUFFIXES = "s ed ing er ly ness able ment ful less ist ism ize ation 's ity".split()
NAMES = """
Ada Alan Amara Boris Chiara Chen Dmitri Elif Farid Grace Hiro Ingrid Jamal Kenji Leila Marta Nikolai Olu Priya
Quentin Rosa Sven Tariq Uma Viktor Wei Ximena Yusuf Zoe Anderson Bauer Castillo Dubois Eriksson Fischer Garcia
Haddad Ivanova Johnson Kowalski Larsson Moreau Nakamura Okafor Petrov Rossi Schmidt Tanaka Weber
""".split()
ACCENTED = """
café naïve façade résumé jalapeño Zürich São Málaga Łódź crème brûlée über Straße señor voilà Ångström déjà
coöperate piñata Çelik Škoda fjörd
""".split()

# Common characters, most frequent first.
HANZI = """
的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么
去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将
两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解
水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社
便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识
候带导争运笔试语言模型训练推理速度内存缓存矩阵注意专家网络层参数精度压缩量化服务请求响应线程队列调度
""".replace("\n", "")
HAN_PUNCTUATION = ["，", "，", "，", "、", "；", "：", "——"]
HAN_ENDS = ["。", "。", "。", "！", "？", "……"]
KANA = """
これ それ あれ ここ です ます から まで でも ので した して いる ある コード データ モデル メモリ サーバー テスト スピード トークン
""".split()

EMOJI = list("😀😂🤣😊😍🤔😴😭🔥✨🎉🚀🌍🌱🐙🐍🦀🍕🍜☕🎸🏀🏆💡📚📈🧠🤖💻🔧⚡❤") + ["👍🏽", "👩‍💻", "🏳️‍🌈", "🇩🇪", "🇯🇵", "❤️", "1️⃣", "👨‍👩‍👧"]
TYPES = ["int", "float", "double", "bool", "size_t", "std::string", "uint32_t", "auto", "const char*", "const void*"]
OPERATORS = ["+", "-", "*", "/", "%", "==", "!=", "<=", ">=", "&&", "||", "<<", ">>", "+=", "-=", "->", "::", "|", "^"]


class Corpus:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        words = FUNCTION_WORDS + self.rng.sample(STEMS, len(STEMS))
        self.words = words
        self.word_weights = self.zipf(len(words))
        self.hanzi_weights = self.zipf(len(HANZI))
        # Chinese words of 1 to 4 characters, likewise in Zipf proportions.
        self.han_words = [
            "".join(self.rng.choices(HANZI, cum_weights=self.hanzi_weights, k=length))
            for length in self.rng.choices((1, 2, 3, 4), weights=(2, 4, 1, 1), k=20_000)
        ]
        self.han_weights = self.zipf(len(self.han_words))

    @staticmethod
    def zipf(count):
        total, cumulative = 0.0, []
        for rank in range(count):
            total += 1 / (rank + 2.7)
            cumulative.append(total)
        return cumulative

    def chance(self, probability):
        return self.rng.random() < probability

    def word(self):
        word = self.rng.choices(self.words, cum_weights=self.word_weights)[0]
        if len(word) > 4:
            if self.chance(0.04):
                word = self.rng.choice(PREFIXES) + word
            if self.chance(0.25):
                word += self.rng.choice(SUFFIXES)
        return word

    def number(self):
        kind = self.rng.randrange(7)
        rng = self.rng
        if kind == 0:
            return str(rng.randrange(100))
        if kind == 1:
            return str(rng.randrange(10**9))
        if kind == 2:
            return f"{rng.uniform(-1000, 1000):.{rng.randrange(1, 7)}f}"
        if kind == 3:
            return f"{rng.randrange(1900, 2100)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
        if kind == 4:
            return f"{rng.randrange(10**7):,}"
        if kind == 5:
            return f"0x{rng.getrandbits(32):08x}"
        return f"{rng.uniform(1, 10):.3e}"

    def sentence(self):
        parts = []
        for _ in range(self.rng.randrange(5, 28)):
            pick = self.rng.random()
            if pick < 0.03:
                token = self.rng.choice(NAMES)
            elif pick < 0.05:
                token = self.number()
            elif pick < 0.055:
                token = self.rng.choice(ACCENTED)
            else:
                token = self.word()
            parts.append(token + ("," if self.chance(0.07) else ""))
        text = " ".join(parts)
        text = text[0].upper() + text[1:]
        if self.chance(0.06):
            text = f"“{text}”" if self.chance(0.5) else f'"{text}"'
        return text + self.rng.choice([".", ".", ".", ".", "!", "?", "...", ";"])

    def english(self):
        return " ".join(self.sentence() for _ in range(self.rng.randrange(2, 8))) + "\n\n"

    def chinese(self):
        out = []
        for _ in range(self.rng.randrange(2, 7)):
            for _ in range(self.rng.randrange(2, 6)):
                out.extend(self.rng.choices(self.han_words, cum_weights=self.han_weights, k=self.rng.randrange(2, 9)))
                if self.chance(0.08):
                    out.append(self.rng.choice([self.word(), f" {self.word()} ", self.number(), self.rng.choice(KANA)]))
                out.append(self.rng.choice(HAN_PUNCTUATION))
            out[-1] = self.rng.choice(HAN_ENDS)
        return "".join(out) + self.rng.choice(["\n", "\n\n", "\r\n"])

    def identifier(self):
        parts = [self.rng.choice(STEMS) for _ in range(self.rng.randrange(1, 4))]
        style = self.rng.randrange(4)
        if style == 0:
            return "_".join(parts)
        if style == 1:
            return parts[0] + "".join(part.capitalize() for part in parts[1:])
        if style == 2:
            return "".join(part.capitalize() for part in parts)
        return "_".join(parts).upper() if self.chance(0.3) else parts[0][: self.rng.randrange(1, 6)]

    def expression(self):
        name, rng = self.identifier, self.rng
        return rng.choice(
            [
                lambda: f"{name()} {rng.choice(OPERATORS)} {name()}",
                lambda: f"{name()}({name()}, {self.number()})",
                lambda: f"{name()}[{name()}]",
                lambda: f'{name()}.{name()}("{self.word()} {self.word()}")',
                lambda: self.number(),
            ]
        )()

    def code(self):
        rng, name = self.rng, self.identifier
        language = rng.randrange(4)
        lines = []
        if language == 0:
            lines.append(f"def {name()}({name()}, {name()}={self.number()}):")
            lines.append(f'    """{self.sentence()}"""')
            for _ in range(rng.randrange(2, 8)):
                indent = "    " * rng.randrange(1, 4)
                lines.append(indent + rng.choice([f"{name()} = {self.expression()}", f"if {self.expression()}:",
                                                  f"return {self.expression()}", f"for {name()} in {name()}:"]))
        elif language == 1:
            lines.append(f"// {self.sentence()}")
            lines.append(f"{rng.choice(TYPES)} {name()}({rng.choice(TYPES)} {name()}, const auto& {name()}) {{")
            for _ in range(rng.randrange(2, 8)):
                indent = "\t" * rng.randrange(1, 4) if self.chance(0.3) else "  " * rng.randrange(1, 4)
                lines.append(indent + rng.choice([f"{rng.choice(TYPES)} {name()} = {self.expression()};",
                                                  f"if ({self.expression()}) {{", f"return {self.expression()};",
                                                  f"++{name()};  // {self.word()} {self.word()}"]))
            lines.append("}")
        elif language == 2:
            lines.append("{")
            for _ in range(rng.randrange(2, 8)):
                value = rng.choice([self.number(), f'"{self.word()}"', "null", "true"])
                lines.append(f'  "{name()}": {value},')
            lines.append("}")
        else:
            for _ in range(rng.randrange(2, 6)):
                lines.append(rng.choice([f"<{name()} class=\"{self.word()}\">{self.sentence()}</{name()}>",
                                         f"https://{self.word()}.example.org/{name()}?{name()}={self.number()}",
                                         f"$ {self.word()} --{name()}={self.number()} | grep '{self.word()}'",
                                         f"SELECT {name()}, {name()} FROM {name()} WHERE {self.expression()};"]))
        return "\n".join(lines) + "\n\n"

    def table(self):
        separator = self.rng.choice([",", "\t", " | ", "  "])
        columns = self.rng.randrange(2, 9)
        return "".join(
            separator.join(self.number() for _ in range(columns)) + "\n" for _ in range(self.rng.randrange(3, 15))
        )

    def chat(self):
        out = []
        for _ in range(self.rng.randrange(2, 10)):
            out.append(" ".join(self.word() for _ in range(self.rng.randrange(1, 7))))
            out.append(self.rng.choice([" ", "", "!! "]) + "".join(self.rng.choices(EMOJI, k=self.rng.randrange(1, 4))))
            out.append(self.rng.choice(["\n", " ", "  "]))
        return "".join(out)

    def text(self, num_bytes):
        """UTF-8 of about num_bytes, cut at a paragraph."""
        paragraphs = [self.english, self.chinese, self.code, self.table, self.chat]
        # Shares of the bytes: a paragraph is drawn for the kind that lags most behind its share.
        shares, written = [0.45, 0.22, 0.22, 0.06, 0.05], [0] * 5
        out, total = [], 0
        while total < num_bytes:
            kind = min(range(5), key=lambda i: written[i] / shares[i])
            paragraph = paragraphs[kind]().encode()
            out.append(paragraph)
            written[kind] += len(paragraph)
            total += len(paragraph)
        return b"".join(out)


def mixed_text(num_bytes, seed=1):
    return Corpus(seed).text(num_bytes)
