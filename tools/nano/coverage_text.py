"""Everyday words, so that the small vocabulary is not blind outside the generated text."""

COVERAGE_EN = [
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not what all"
    " were we when your can said there use an each which she do how their if will up other about out many then them these so"
    " some her would make like him into time has look two more write go see number no way could people my than first water been"
    " call who its now find long down day did get come made may part over new sound take only little work know place year live"
    " me back give most very after thing our just name good sentence man think say great where help through much before line"
    " right too mean old any same tell boy follow came want show also around form three small set put end does another well"
    " large must big even such because turn here why ask went men read need land different home us move try kind hand picture"
    " again change off play spell air away animal house point page letter mother answer found study still learn should world",
    "Please explain why. I think the answer is correct. Hello, world! This is a test of the model. The user asked for a list.",
    "def main(): return value; int x = 0; for (i = 0; i < n; i++) { print(i); } if else while class import from true false null",
    '{"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}, "type": "function", "content": null}',
]

COVERAGE_ZH = [
    "的 一 是 不 了 在 人 有 我 他 这 个 们 中 来 上 大 为 和 国 地 到 以 说 时 要 就 出 会 可 也 你 对 生 能 而 子 那 得 于 着 下 自 之 年 过 发 后 作 里"
    " 用 道 行 所 然 家 种 事 成 方 多 经 么 去 法 学 如 都 同 现 当 没 动 面 起 看 定 天 分 还 进 好 小 部 其 些 主 样 理 心 她 本 前 开 但 因 只 从 想 实"
    " 日 军 者 意 无 力 它 与 长 把 机 十 民 第 公 此 已 工 使 情 明 性 知 全 三 又 关 点 正 业 外 将 两 高 间 由 问 很 最 重 并 物 手 应 战 向 头 文 体 政"
    " 美 相 见 被 利 什 二 等 产 或 新 己 制 身 果 加 西 斯 月 话 合 回 特 代 内 信 表 化 老 给 世 位 次 度 门 任 常 先 海 通 教 儿 原 东 声 提 立 及 比 员",
    "我们 你们 他们 什么 怎么 为什么 因为 所以 但是 如果 可以 没有 知道 时候 问题 答案 请问 谢谢 今天 明天 模型 语言 世界 中国 学习 工作",
]
