"""What a newcomer does in the first minutes: make serve, the curl it prints, the guide's request, stop."""
import json
import shlex
import subprocess
import unittest

from serving import REPOSITORY, Server

ASK_CHINESE = "列出 3 个国家和它们的首都。"
ASK_ENGLISH = "List 3 countries and their capitals."
# Enough of the world to judge nano's answers; both spellings of a pair must stand in one line of the answer.
CAPITALS = {
    "China": "Beijing", "France": "Paris", "Japan": "Tokyo", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Russia": "Moscow", "Egypt": "Cairo", "Canada": "Ottawa", "Australia": "Canberra", "India": "New Delhi",
    "Brazil": "Brasília", "Thailand": "Bangkok", "Greece": "Athens", "Portugal": "Lisbon", "Kenya": "Nairobi",
    "Sweden": "Stockholm", "Norway": "Oslo", "Finland": "Helsinki", "Poland": "Warsaw", "Austria": "Vienna",
    "Ireland": "Dublin", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago", "Vietnam": "Hanoi",
    "Turkey": "Ankara", "Iran": "Tehran", "Iraq": "Baghdad", "Mexico": "Mexico City", "Argentina": "Buenos Aires",
    "South Korea": "Seoul", "United Kingdom": "London", "United States": "Washington", "Indonesia": "Jakarta",
    "Malaysia": "Kuala Lumpur", "Philippines": "Manila", "Mongolia": "Ulaanbaatar", "Nepal": "Kathmandu",
    "Denmark": "Copenhagen", "Netherlands": "Amsterdam", "Belgium": "Brussels", "Hungary": "Budapest",
    "Ukraine": "Kyiv", "Switzerland": "Bern", "Saudi Arabia": "Riyadh", "Morocco": "Rabat", "Colombia": "Bogotá",
    "中国": "北京", "法国": "巴黎", "日本": "东京", "德国": "柏林", "意大利": "罗马", "西班牙": "马德里", "俄罗斯": "莫斯科",
    "埃及": "开罗", "加拿大": "渥太华", "澳大利亚": "堪培拉", "印度": "新德里", "巴西": "巴西利亚", "泰国": "曼谷",
    "希腊": "雅典", "葡萄牙": "里斯本", "肯尼亚": "内罗毕", "瑞典": "斯德哥尔摩", "挪威": "奥斯陆", "芬兰": "赫尔辛基",
    "波兰": "华沙", "奥地利": "维也纳", "爱尔兰": "都柏林", "古巴": "哈瓦那", "秘鲁": "利马", "智利": "圣地亚哥",
    "越南": "河内", "土耳其": "安卡拉", "伊朗": "德黑兰", "伊拉克": "巴格达", "墨西哥": "墨西哥城",
    "阿根廷": "布宜诺斯艾利斯", "韩国": "首尔", "英国": "伦敦", "美国": "华盛顿", "印度尼西亚": "雅加达",
    "马来西亚": "吉隆坡", "菲律宾": "马尼拉", "蒙古": "乌兰巴托", "尼泊尔": "加德满都", "丹麦": "哥本哈根",
    "荷兰": "阿姆斯特丹", "比利时": "布鲁塞尔", "匈牙利": "布达佩斯", "乌克兰": "基辅", "瑞士": "伯尔尼",
    "沙特阿拉伯": "利雅得", "摩洛哥": "拉巴特", "哥伦比亚": "波哥大",
}


def right_pairs(text: str) -> set[str]:
    return {country for country, capital in CAPITALS.items() if country in text and capital in text}


class Quickstart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(through_make=True).__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def test_printed_curl_works(self):
        line = next(line for line in self.server.lines if line.strip().startswith("curl "))
        done = subprocess.run(shlex.split(line) + ["--silent", "--fail"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("choices", json.loads(done.stdout))

    def test_seed_request_is_answered_right(self):
        for question in (ASK_CHINESE, ASK_ENGLISH):
            with self.subTest(question=question):
                answer = self.server.post("/v1/chat/completions", {
                    "messages": [{"role": "user", "content": question}], "max_tokens": 128, "temperature": 0})
                choice = answer["choices"][0]
                self.assertEqual(choice["finish_reason"], "stop")
                self.assertGreaterEqual(len(right_pairs(choice["message"]["content"])), 3, choice)
                self.assertTrue(choice["message"]["reasoning_content"])
                self.assertEqual(choice["message"]["reasoning_content"], choice["message"]["reasoning"])
                self.assertNotIn("think>", choice["message"]["content"])
                raw = self.server.post("/v1/completions", {"prompt": question, "max_tokens": 128, "temperature": 0})
                self.assertGreaterEqual(len(right_pairs(raw["choices"][0]["text"])), 3, raw)

    def test_streamed_equals_whole(self):
        body = {"messages": [{"role": "user", "content": ASK_CHINESE}], "max_tokens": 128, "temperature": 0}
        whole = self.server.post("/v1/chat/completions", body)["choices"][0]["message"]
        deltas = [event["choices"][0]["delta"] for event in self.server.stream("/v1/chat/completions", body)]
        self.assertEqual("".join(delta.get("content") or "" for delta in deltas), whole["content"])
        self.assertEqual("".join(delta.get("reasoning_content") or "" for delta in deltas), whole["reasoning_content"])

    def test_health_version_metrics_models(self):
        self.assertEqual(self.server.call("GET", "/health")[0], 200)
        self.assertIn("version", json.loads(self.server.call("GET", "/version")[2]))
        self.assertIn("vllm:num_requests_running", self.server.call("GET", "/metrics")[2])
        card = json.loads(self.server.call("GET", "/v1/models")[2])["data"][0]
        self.assertEqual(card["id"], "models/nano")
        self.assertGreaterEqual(card["max_model_len"], 32768)

    def test_tokenize_round_trip(self):
        for text in (ASK_CHINESE, "a  b\n\t12345 ½ naïve 🙂"):
            tokens = self.server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
            self.assertEqual(self.server.post("/detokenize", {"tokens": tokens})["prompt"], text)


class Lifecycle(unittest.TestCase):
    def test_terminates_cleanly_and_refuses_bad_flags(self):
        with Server() as server:
            self.assertEqual(server.stop(), 0)
        binary = server.command[0]
        done = subprocess.run([binary, "serve", "--modle", "x"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--model", done.stderr)

    def test_fp8_cache_serves_and_others_are_refused(self):
        with Server(args=("--kv-cache-dtype", "fp8")) as server:
            self.assertTrue(any(line.startswith("numerics") and "KV cache FP8 E4M3" in line for line in server.lines))
            self.assertIn('cache_dtype="fp8"', server.call("GET", "/metrics")[2])
            answer = server.post("/v1/completions", {"prompt": ASK_ENGLISH, "max_tokens": 128, "temperature": 0})
            self.assertGreaterEqual(len(right_pairs(answer["choices"][0]["text"])), 3, answer)
        done = subprocess.run([server.command[0], "serve", "--model", "models/nano", "--port", "0", "--kv-cache-dtype",
                               "fp8_e5m2"], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertIn("fp8_e4m3", done.stderr)


if __name__ == "__main__":
    unittest.main()
