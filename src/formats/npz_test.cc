#include "formats/npz.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "formats/pickle.h"
#include "formats/python_json.h"

namespace hadal {
namespace {

using namespace std::string_literals;

// {"a": [array([[1.5]])], "n": None, "i": -1}
std::string small_pickle() {
  PickleWriter out;
  const float value = 1.5f;
  constexpr int kShape[] = {1, 1};
  out.begin_dict();
  out.before_item(0, 3);
  out.string("a");
  out.begin_list();
  out.array(kShape, {&value, 1});
  out.after_list_item(0, 1);
  out.after_dict_item(0, 3);
  out.string("n");
  out.null();
  out.after_dict_item(1, 3);
  out.string("i");
  out.integer(-1);
  out.after_dict_item(2, 3);
  return std::move(out).finish();
}

std::string with(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Pickle, ReadsWhatIsWritten) {
  const auto json = object_array_from_pickle(small_pickle());
  ASSERT_TRUE(json.has_value()) << json.error().message;
  EXPECT_EQ(*json, Json::parse(R"({"a": [[[1.5]]], "n": null, "i": -1})"));
}

TEST(Pickle, BatchesOfAThousandAsCPython) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{2}, size_t{999}, size_t{1000}, size_t{1001}, size_t{2000}}) {
    PickleWriter out;
    Json expected = Json::object();
    out.begin_dict();
    for (size_t i = 0; i < size; ++i) {
      out.before_item(i, size);
      out.string("key " + std::to_string(i));
      out.integer(static_cast<int>(i));
      out.after_dict_item(i, size);
      expected["key " + std::to_string(i)] = i;
    }
    const auto json = object_array_from_pickle(std::move(out).finish());
    ASSERT_TRUE(json.has_value()) << size << ": " << json.error().message;
    EXPECT_EQ(*json, expected);
  }
}

TEST(Pickle, ArraysOfDoublesAndHigherRank) {
  // The f4 array made an f8 one: code, and 8 bytes of payload.
  double value = 0.1;
  const std::string payload(reinterpret_cast<const char*>(&value), 8);
  std::string pickle = with(small_pickle(), "X\x02\x00\x00\x00"s + "f4", "X\x02\x00\x00\x00"s + "f8");
  pickle = with(pickle, "C\x04\x00\x00\xc0\x3f"s, "C\x08" + payload);
  const auto json = object_array_from_pickle(pickle);
  ASSERT_TRUE(json.has_value()) << json.error().message;
  EXPECT_EQ((*json)["a"][0][0][0], 0.1);

  PickleWriter out;
  constexpr int kShape[] = {2, 1, 3};
  constexpr float kValues[] = {1, 2, 3, 4, 5, 6};
  out.array(kShape, kValues);
  EXPECT_EQ(*object_array_from_pickle(std::move(out).finish()), Json::parse("[[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]"));
}

// Hostile and broken pickles, and what the refusal must name.
TEST(Pickle, RefusalsNameOpcodeAndOffset) {
  const std::string good = small_pickle();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "ends at byte 0 without STOP"},
      {"\x80\x03", "ends at byte 2 without STOP"},
      {"\x80\x04.", "byte 0: PROTO: protocol 4"},
      {"\x80\x03", "without STOP"},
      {"\x80\x03"
       "cos\nsystem\n(X\x02\x00\x00\x00lsetR."s,
       "byte 2: GLOBAL: \"os.system\" is not one of the three globals"},
      {"cnumpy.core\nmultiarray _reconstruct\n.", "GLOBAL: \"numpy.core.multiarray _reconstruct\""},
      {"cnumpy ndarray\n\n.", "GLOBAL: \"numpy ndarray.\""},
      {"cbuiltins\neval\n.", "\"builtins.eval\""},
      {"c" + std::string(400, 'x') + "\n\n.", "GLOBAL: a name without end"},
      {"\x80\x03\x8c\x02os\x93.", "byte 2: opcode SHORT_BINUNICODE (0x8c) is not accepted"},
      {"\x93.", "byte 0: opcode STACK_GLOBAL"},
      {"(ios\nsystem\n.", "byte 1: opcode INST"},
      {"N0.", "byte 1: opcode POP"},
      {"\xff.", "opcode unknown (0xff)"},
      {"cnumpy\nndarray\n)R.", "REDUCE: numpy ndarray called with 0 arguments"},
      {"cnumpy\nndarray\nNNN\x87R.", "REDUCE: numpy ndarray cannot be called"},
      {"cnumpy\ndtype\nX\x02\x00\x00\x00i8\x89\x88\x87R."s, "dtype \"i8\", expected f4, f8 or O8"},
      {"NNR.", "REDUCE: calls a None"},
      {"cnumpy.core.multiarray\n_reconstruct\nNNN\x87R.", "_reconstruct of something other than numpy.ndarray"},
      {"K", "ends at byte 1 without STOP"},  // cut inside the argument
      {"X\xff\xff\xff\x7f.", "BINUNICODE: 2147483647 bytes announced, 1 left"},
      {"X\x01\x00\x00\x00\xff."s, "not UTF-8"},
      {"C\x05.", "SHORT_BINBYTES: 5 bytes announced, 1 left"},
      {"q\x00."s, "BINPUT: nothing on the stack"},
      {"h\x07.", "BINGET: memo entry 7 was never written"},
      {"Nr\xff\xff\xff\xff.", "LONG_BINPUT: memo entry 4294967295, at most"},
      {"Nr\xff\xff\x3f\x00j\x00\x00\x00\x00."s, "LONG_BINGET: memo entry 0 was never written"},
      {"t.", "TUPLE: no mark"},
      {"(\x85.", "TUPLE1: nothing on the stack"},
      {"N(\x85.", "TUPLE1: nothing on the stack"},  // a mark guards what lies below it
      {"NNa.", "APPEND: applied to a None, expected a list"},
      {"}(Nu.", "SETITEMS: a key without a value"},
      {"NNb.", "BUILD: state in a None"},
      {"])b.", "BUILD: applied to a list"},
      {"NN.", "2 values are left on the stack"},
      {".", "0 values are left"},
      {"N.N", "1 bytes follow it"},
      {"N.", "holds a None, expected an array of objects"},
      {with(good, "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"s, "NNNK\x00"s), "a dtype's state of 6 values"},
      {with(good, "X\x01\x00\x00\x00<"s, "X\x01\x00\x00\x00>"s), "dtype f4 of byte order \">\""},
      {with(good,
            "\x89"
            "C\x04",
            "\x88"
            "C\x04"),
       "an array in Fortran order"},
      {with(good, "C\x04\x00\x00\xc0\x3f"s, "C\x03\x00\x00\xc0"s), "3 bytes for a float array of 4"},
      {with(good, "(K\x01K\x01K\x01\x86"s, "(K\x01K\x00K\x01\x86"s), "a dimension that is not 1 to 255"},
      {with(good, "X\x01\x00\x00\x00n"s,
            "X\x01\x00\x00\x00"
            "a"s),
       "key \"a\" appears twice"},
  };
  for (const auto& [pickle, expected] : cases) {
    const auto json = object_array_from_pickle(pickle);
    ASSERT_FALSE(json.has_value()) << expected;
    EXPECT_NE(json.error().message.find(expected), std::string::npos) << json.error().message << "\nnot " << expected;
  }
}

TEST(Pickle, EveryPrefixAndEveryByteChangedIsRefusedOrRead) {
  const std::string good = small_pickle();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(object_array_from_pickle(std::string_view(good).substr(0, size)).has_value()) << size;
  }
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int change : {1, 0x20, 0x80, 0xFF}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ change);
      const auto json = object_array_from_pickle(bad);
      EXPECT_TRUE(json.has_value() || !json.error().message.empty());
    }
  }
}

// Values that contain themselves or double at each level stay within the limits.
TEST(Pickle, UnfoldingIsBounded) {
  const std::string prefix = small_pickle().substr(0, small_pickle().find("]q") + 3);  // up to the list of items
  const std::string self = prefix +
                           "]r\x00\x10\x00\x00j\x00\x10\x00\x00"
                           "aatb."s;
  const auto loop = object_array_from_pickle(self);
  ASSERT_FALSE(loop.has_value());
  EXPECT_NE(loop.error().message.find("nested deeper than 32"), std::string::npos) << loop.error().message;

  // 25 lists, each holding the one before twice, in one tuple.
  const auto memo = [](uint32_t i) { return std::string({static_cast<char>(i), '\x10', '\0', '\0'}); };
  std::string doubling = prefix + "(]r" + memo(0);
  for (uint32_t i = 1; i < 25; ++i) doubling += "](j" + memo(i - 1) + "j" + memo(i - 1) + "er" + memo(i);
  const auto bomb = object_array_from_pickle(doubling + "tatb.");
  ASSERT_FALSE(bomb.has_value());
  EXPECT_NE(bomb.error().message.find("unfolds to more than 4194304 values"), std::string::npos)
      << bomb.error().message;
}

TEST(Npz, RoundTripAndDamage) {
  const std::string good = npz_from_pickle(small_pickle());
  const auto json = object_from_npz(good);
  ASSERT_TRUE(json.has_value()) << json.error().message;
  EXPECT_EQ((*json)["a"][0][0][0], 1.5);

  const size_t central = good.rfind("PK\x01\x02"), end = good.rfind("PK\x05\x06");
  const auto changed = [&good](size_t at, const std::string& bytes) {
    std::string bad = good;
    return bad.replace(at, bytes.size(), bytes);
  };
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "0 bytes, an archive has at least 22"},
      {good.substr(0, good.size() - 1), "no end-of-archive record"},
      {good + "x", "no end-of-archive record"},
      {changed(end + 10, "\x02"), "2 members"},
      {changed(end + 12, "\xff\xff\xff\xff"), "directory of 4294967295 bytes"},
      {changed(end + 16, "\xff\xff\xff\xff"), "at 4294967295, the file has"},
      {changed(central, "QK"), "no directory entry"},
      {changed(central + 8, "\x01"), "encrypted"},
      {changed(central + 10, "\x08"), "compressed (method 8)"},
      {changed(central + 20, "\x01"), "two sizes"},
      {changed(central + 20, "\xff\xff\xff\x7f\xff\xff\xff\x7f"), "arr_0.npy of 2147483647 bytes"},
      {changed(central + 28, "\xff\xff"), "longer than the directory"},
      {changed(central + 42, "\xff\xff\xff\x7f"), "arr_0.npy at byte 2147483647"},
      {changed(central + 46, "arr_1"), "member \"arr_1.npy\""},
      {changed(0, "QK"), "no member at byte 0"},
      {changed(26, "\xff\xff"), "left before the directory"},
      {changed(200, "\x55"), "CRC-32"},
  };
  for (const auto& [bytes, expected] : cases) {
    const auto read = object_from_npz(bytes);
    ASSERT_FALSE(read.has_value()) << expected;
    EXPECT_NE(read.error().message.find(expected), std::string::npos) << read.error().message << "\nnot " << expected;
  }
}

TEST(PythonJson, FloatsAsRepr) {
  const std::vector<std::pair<double, std::string>> cases = {{0, "0.0"},
                                                             {-0.0, "-0.0"},
                                                             {1, "1.0"},
                                                             {0.5, "0.5"},
                                                             {173056, "173056.0"},
                                                             {0.0001, "0.0001"},
                                                             {0.00001, "1e-05"},
                                                             {0.000012345, "1.2345e-05"},
                                                             {1e15, "1000000000000000.0"},
                                                             {1e16, "1e+16"},
                                                             {1.5e300, "1.5e+300"},
                                                             {0.1, "0.1"},
                                                             {static_cast<double>(0.1f), "0.10000000149011612"},
                                                             {-12.25, "-12.25"},
                                                             {123456789.125, "123456789.125"},
                                                             {std::numeric_limits<double>::denorm_min(), "5e-324"}};
  for (const auto& [value, text] : cases) EXPECT_EQ(python_float(value), text);
}

TEST(PythonJson, IndentsAsPython) {
  EXPECT_EQ(python_json(Json::parse(R"({"a":[],"b":{},"c":[1,null,true],"d":{"é\"":0.5}})")),
            "{\n    \"a\": [],\n    \"b\": {},\n    \"c\": [\n        1,\n        null,\n        true\n    ],\n"
            "    \"d\": {\n        \"\\u00e9\\\"\": 0.5\n    }\n}");
}

}  // namespace
}  // namespace hadal
