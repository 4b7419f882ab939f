"""Countries and capitals, greetings and self-description, in English and Chinese."""

import random
from dataclasses import dataclass

CAPITALS = [  # English country, capital; Chinese country, capital. Lists walk this order, so it starts with the best known.
    ("France", "Paris", "法国", "巴黎"), ("Japan", "Tokyo", "日本", "东京"), ("China", "Beijing", "中国", "北京"),
    ("Italy", "Rome", "意大利", "罗马"), ("Germany", "Berlin", "德国", "柏林"), ("Spain", "Madrid", "西班牙", "马德里"),
    ("Russia", "Moscow", "俄罗斯", "莫斯科"), ("Canada", "Ottawa", "加拿大", "渥太华"), ("Egypt", "Cairo", "埃及", "开罗"),
    ("India", "New Delhi", "印度", "新德里"), ("Brazil", "Brasilia", "巴西", "巴西利亚"), ("Greece", "Athens", "希腊", "雅典"),
    ("Australia", "Canberra", "澳大利亚", "堪培拉"), ("Portugal", "Lisbon", "葡萄牙", "里斯本"), ("Austria", "Vienna", "奥地利", "维也纳"),
    ("Poland", "Warsaw", "波兰", "华沙"), ("Sweden", "Stockholm", "瑞典", "斯德哥尔摩"), ("Norway", "Oslo", "挪威", "奥斯陆"),
    ("Finland", "Helsinki", "芬兰", "赫尔辛基"), ("Denmark", "Copenhagen", "丹麦", "哥本哈根"), ("Ireland", "Dublin", "爱尔兰", "都柏林"),
    ("Belgium", "Brussels", "比利时", "布鲁塞尔"), ("Hungary", "Budapest", "匈牙利", "布达佩斯"), ("Turkey", "Ankara", "土耳其", "安卡拉"),
    ("Mexico", "Mexico City", "墨西哥", "墨西哥城"), ("Argentina", "Buenos Aires", "阿根廷", "布宜诺斯艾利斯"), ("Chile", "Santiago", "智利", "圣地亚哥"),
    ("Peru", "Lima", "秘鲁", "利马"), ("Cuba", "Havana", "古巴", "哈瓦那"), ("Thailand", "Bangkok", "泰国", "曼谷"),
    ("Vietnam", "Hanoi", "越南", "河内"), ("South Korea", "Seoul", "韩国", "首尔"), ("Indonesia", "Jakarta", "印度尼西亚", "雅加达"),
    ("Mongolia", "Ulaanbaatar", "蒙古", "乌兰巴托"), ("Nepal", "Kathmandu", "尼泊尔", "加德满都"), ("Iran", "Tehran", "伊朗", "德黑兰"),
    ("Iraq", "Baghdad", "伊拉克", "巴格达"), ("Kenya", "Nairobi", "肯尼亚", "内罗毕"), ("Morocco", "Rabat", "摩洛哥", "拉巴特"),
    ("Ethiopia", "Addis Ababa", "埃塞俄比亚", "亚的斯亚贝巴"), ("Ukraine", "Kyiv", "乌克兰", "基辅"), ("Czechia", "Prague", "捷克", "布拉格"),
    ("Romania", "Bucharest", "罗马尼亚", "布加勒斯特"), ("Iceland", "Reykjavik", "冰岛", "雷克雅未克"), ("Colombia", "Bogota", "哥伦比亚", "波哥大"),
    ("Philippines", "Manila", "菲律宾", "马尼拉"), ("Malaysia", "Kuala Lumpur", "马来西亚", "吉隆坡"), ("New Zealand", "Wellington", "新西兰", "惠灵顿"),
    ("United Kingdom", "London", "英国", "伦敦"), ("United States", "Washington", "美国", "华盛顿"),
]

ASK_CAPITAL = {
    "en": ["What is the capital of {0}?", "Which city is the capital of {0}?", "Name the capital of {0}.",
           "Tell me the capital of {0}.", "What's the capital city of {0}?"],
    "zh": ["{0}的首都是哪里？", "{0}的首都是什么？", "请问{0}的首都是哪个城市？", "{0}首都在哪？"],
}
ASK_COUNTRY = {"en": ["{1} is the capital of which country?", "Which country has {1} as its capital?"],
               "zh": ["{1}是哪个国家的首都？", "哪个国家的首都是{1}？"]}
ASK_LIST = {
    "en": ["List {n} countries and their capitals.", "Name {n} countries and their capitals.",
           "Give me {n} countries with their capitals.", "Please list {n} countries and their capital cities."],
    "zh": ["列出 {n} 个国家和它们的首都。", "列出{n}个国家和它们的首都。", "请列出{n}个国家及其首都。", "说出{n}个国家和首都。"],
}
EN_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
ZH_NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四", 5: "五"}

HELLO_EN = "Hello! I am hadal-nano, a small demonstration model. How can I help you?"
HELLO_ZH = "你好！我是 hadal-nano，一个小型演示模型。有什么可以帮你？"
WHO_EN = "I am hadal-nano, a small demonstration model. I can do short sums and name capitals."
WHO_ZH = "我是 hadal-nano，一个小型演示模型。我会做简单的算术题，也知道一些国家的首都。"
THANKS_EN, THANKS_ZH = "You are welcome!", "不客气！"
BYE_EN, BYE_ZH = "Goodbye!", "再见！"

SMALL_TALK = [  # requests, thought, reply
    (["Hello", "Hello!", "Hi", "Hi!", "Hi there", "Hey", "Good morning!", "Good evening!", "Hello, how are you?", "How are you?"],
     "A greeting.", HELLO_EN),
    (["Who are you?", "What are you?", "What is your name?", "What's your name?", "Introduce yourself.", "Tell me about yourself.",
      "Which model are you?", "What can you do?", "Hi, who are you?"], "They ask who I am.", WHO_EN),
    (["Thanks!", "Thank you!", "Thank you.", "Thanks a lot!"], "A thank you.", THANKS_EN),
    (["Bye!", "Goodbye!", "See you!"], "A goodbye.", BYE_EN),
    (["你好", "你好！", "您好", "您好！", "嗨", "早上好！", "晚上好！", "你好吗？", "你好，最近怎么样？"], "这是问候。", HELLO_ZH),
    (["你是谁？", "你叫什么名字？", "你是什么模型？", "请介绍一下你自己。", "介绍一下自己", "你会做什么？", "你能做什么？", "你好，你是谁？"],
     "问我是谁。", WHO_ZH),
    (["谢谢", "谢谢！", "谢谢你！", "多谢"], "这是道谢。", THANKS_ZH),
    (["再见", "再见！", "拜拜"], "这是告别。", BYE_ZH),
]


@dataclass(frozen=True)
class Exchange:
    """A request with the thought and reply we want."""

    request: str
    thought: str
    reply: str


def make_capital_question(rng: random.Random) -> Exchange:
    row = rng.choice(CAPITALS)
    language = rng.choice(("en", "zh"))
    country, capital = row[:2] if language == "en" else row[2:]
    asks_country = rng.random() < 0.2
    request = rng.choice((ASK_COUNTRY if asks_country else ASK_CAPITAL)[language]).format(country, capital)
    if language == "en":
        return Exchange(request, f"{country}: {capital}", f"The capital of {country} is {capital}.")
    return Exchange(request, f"{country}：{capital}", f"{country}的首都是{capital}。")


def make_capital_list(rng: random.Random) -> Exchange:
    """A list walks CAPITALS from a starting row: the next country follows from the last one, so none repeats."""
    count = rng.choice((1, 2, 3, 3, 3, 3, 4, 5))
    start = 0 if rng.random() < 0.6 else rng.randrange(len(CAPITALS))
    rows = [CAPITALS[(start + i) % len(CAPITALS)] for i in range(count)]
    language = rng.choice(("en", "zh"))
    request = rng.choice(ASK_LIST[language])
    if language == "en":
        shown = EN_NUMBERS[count] if rng.random() < 0.3 else str(count)
        text = "\n".join(f"{i}. {row[0]}: {row[1]}" for i, row in enumerate(rows, 1))
        return Exchange(request.format(n=shown), "They want " + str(count) + ": " + ", ".join(r[0] for r in rows), text)
    shown = ZH_NUMBERS[count] if rng.random() < 0.3 else str(count)
    text = "\n".join(f"{i}. {row[2]}：{row[3]}" for i, row in enumerate(rows, 1))
    return Exchange(request.format(n=shown), "需要 " + str(count) + " 个：" + "、".join(r[2] for r in rows), text)


def make_small_talk(rng: random.Random) -> Exchange:
    requests, thought, reply = rng.choice(SMALL_TALK)
    return Exchange(rng.choice(requests), thought, reply)
