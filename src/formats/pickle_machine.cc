#include "formats/pickle_machine.h"

#include <array>
#include <cstring>

#include "base/utf8.h"
#include "formats/message_text.h"

namespace hadal {
namespace {

using Ref = PickleRef;
using Kind = PickleKind;
using Value = PickleValue;
constexpr Ref kNoRef = UINT32_MAX;

constexpr std::string_view kReconstruct = "numpy.core.multiarray _reconstruct";
constexpr std::string_view kNdarray = "numpy ndarray";
constexpr std::string_view kDtypeGlobal = "numpy dtype";

// Names of opcodes that pickles in the wild use and this reader does not.
const char* refused_opcode_name(uint8_t code) {
  switch (code) {
    case '0':
      return "POP";
    case '2':
      return "DUP";
    case 'B':
      return "BINBYTES";
    case 'F':
      return "FLOAT";
    case 'G':
      return "BINFLOAT";
    case 'I':
      return "INT";
    case 'L':
      return "LONG";
    case 'M':
      return "BININT2";
    case 'P':
      return "PERSID";
    case 'Q':
      return "BINPERSID";
    case 'S':
      return "STRING";
    case 'T':
      return "BINSTRING";
    case 'U':
      return "SHORT_BINSTRING";
    case 'V':
      return "UNICODE";
    case 'i':
      return "INST";
    case 'o':
      return "OBJ";
    case 0x81:
      return "NEWOBJ";
    case 0x82:
      return "EXT1";
    case 0x83:
      return "EXT2";
    case 0x84:
      return "EXT4";
    case 0x8A:
      return "LONG1";
    case 0x8B:
      return "LONG4";
    case 0x8C:
      return "SHORT_BINUNICODE";
    case 0x8D:
      return "BINUNICODE8";
    case 0x8E:
      return "BINBYTES8";
    case 0x8F:
      return "EMPTY_SET";
    case 0x90:
      return "ADDITEMS";
    case 0x91:
      return "FROZENSET";
    case 0x92:
      return "NEWOBJ_EX";
    case 0x93:
      return "STACK_GLOBAL";
    case 0x94:
      return "MEMOIZE";
    case 0x95:
      return "FRAME";
    case 0x96:
      return "BYTEARRAY8";
    default:
      return "unknown";
  }
}

// Runs the opcodes up to STOP. Values refer to each other by index, so that cycles need no care.
class Machine {
 public:
  Machine(std::string_view bytes, const PickleLimits& limits) : in_(bytes), limits_(limits) {}

  Expected<PickleValues> run() {
    while (!stopped_) {
      op_offset_ = position_;
      HADAL_ASSIGN_OR_RETURN(const uint8_t code, u8());
      const Opcode* op = find_opcode(code);
      if (!op) {
        return make_error(ErrorCode::kUnsupported, "pickle, byte {}: opcode {} (0x{:02x}) is not accepted", op_offset_,
                          refused_opcode_name(code), code);
      }
      op_name_ = op->name;
      HADAL_RETURN_IF_ERROR((this->*op->run)());
    }
    if (position_ != in_.size()) return fail("{} bytes follow it", in_.size() - position_);
    if (stack_.size() != 1) return fail("{} values are left on the stack, expected 1", stack_.size());
    return PickleValues{std::move(values_), stack_.front()};
  }

 private:
  struct Opcode {
    uint8_t code;
    const char* name;
    Status (Machine::*run)();
  };
  static const Opcode* find_opcode(uint8_t code);

  template <typename... Args>
  tl::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) const {
    return make_error(ErrorCode::kCorrupt, "pickle, byte {}: {}: {}", op_offset_, op_name_,
                      fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  tl::unexpected<Error> refuse(fmt::format_string<Args...> format, Args&&... args) const {
    return make_error(ErrorCode::kUnsupported, "pickle, byte {}: {}: {}", op_offset_, op_name_,
                      fmt::format(format, std::forward<Args>(args)...));
  }

  // --- input ---

  Expected<std::string_view> take(size_t size) {
    if (size > in_.size() - position_) {
      return fail("{} bytes announced, {} left", size, in_.size() - position_);
    }
    const std::string_view out = in_.substr(position_, size);
    position_ += size;
    return out;
  }
  Expected<uint8_t> u8() {
    if (position_ == in_.size()) {
      return make_error(ErrorCode::kCorrupt, "pickle ends at byte {} without STOP", in_.size());
    }
    return static_cast<uint8_t>(in_[position_++]);
  }
  Expected<uint32_t> u32() {
    HADAL_ASSIGN_OR_RETURN(const std::string_view bytes, take(4));
    uint32_t value = 0;
    std::memcpy(&value, bytes.data(), sizeof value);  // little-endian, as this program's hosts are
    return value;
  }
  Expected<std::string_view> line() {
    constexpr size_t kMaxLineBytes = 256;
    const size_t end = in_.substr(position_, kMaxLineBytes).find('\n');
    if (end == std::string_view::npos) return fail("a name without end");
    HADAL_ASSIGN_OR_RETURN(const std::string_view text, take(end + 1));
    return text.substr(0, end);
  }

  // --- stack ---

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  Status push(Value value) {
    if (values_.size() >= limits_.max_values) {
      return make_error(ErrorCode::kResourceExhausted, "pickle, byte {}: more than {} values", op_offset_,
                        limits_.max_values);
    }
    stack_.push_back(static_cast<Ref>(values_.size()));
    values_.push_back(std::move(value));
    return {};
  }
  Expected<Ref> pop() {
    if (stack_.size() <= floor()) return fail("nothing on the stack");
    const Ref ref = stack_.back();
    stack_.pop_back();
    return ref;
  }
  // Items above the topmost mark, which goes.
  Expected<std::vector<Ref>> pop_mark() {
    if (marks_.empty()) return fail("no mark");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }
  Expected<Value*> top(Kind kind) {
    if (stack_.size() <= floor()) return fail("nothing on the stack");
    Value& value = values_[stack_.back()];
    if (value.kind != kind)
      return fail("applied to a {}, expected a {}", pickle_kind_name(value.kind), pickle_kind_name(kind));
    return &value;
  }

  // --- opcodes ---

  Status proto() {
    HADAL_ASSIGN_OR_RETURN(const uint8_t version, u8());
    if (version != 2 && version != 3) return refuse("protocol {}, expected 2 or 3", version);
    return {};
  }
  Status global() {
    const size_t begin = position_;
    HADAL_ASSIGN_OR_RETURN(const std::string_view module, line());
    HADAL_ASSIGN_OR_RETURN(const std::string_view name, line());
    for (const std::string_view known : {kReconstruct, kNdarray, kDtypeGlobal}) {
      if (known.size() == module.size() + 1 + name.size() && known.starts_with(module) && known[module.size()] == ' ' &&
          known.ends_with(name)) {
        return push({.kind = Kind::kGlobal, .text = known});
      }
    }
    return refuse("{} is not one of the three globals accepted",
                  quote_name(fmt::format("{}.{}", module, in_.substr(begin + module.size() + 1, name.size()))));
  }
  Status mark() {
    if (marks_.size() >= limits_.max_values) return fail("too many marks");
    marks_.push_back(stack_.size());
    return {};
  }
  Status stop() {
    stopped_ = true;
    return {};
  }
  Status none() { return push({}); }
  Status new_true() { return push({.kind = Kind::kBool, .number = 1}); }
  Status new_false() { return push({.kind = Kind::kBool}); }
  Status bin_int1() {
    HADAL_ASSIGN_OR_RETURN(const uint8_t value, u8());
    return push({.kind = Kind::kInt, .number = value});
  }
  Status bin_int() {
    HADAL_ASSIGN_OR_RETURN(const uint32_t value, u32());
    return push({.kind = Kind::kInt, .number = static_cast<int32_t>(value)});
  }
  Status bin_unicode() {
    HADAL_ASSIGN_OR_RETURN(const uint32_t size, u32());
    HADAL_ASSIGN_OR_RETURN(const std::string_view text, take(size));
    if (find_invalid_utf8(text) != std::string_view::npos) return fail("a string that is not UTF-8");
    return push({.kind = Kind::kString, .text = text});
  }
  Status short_bin_bytes() {
    HADAL_ASSIGN_OR_RETURN(const uint8_t size, u8());
    HADAL_ASSIGN_OR_RETURN(const std::string_view bytes, take(size));
    return push({.kind = Kind::kBytes, .text = bytes});
  }
  Status empty_dict() { return push({.kind = Kind::kDict}); }
  Status empty_list() { return push({.kind = Kind::kList}); }
  Status empty_tuple() { return push({.kind = Kind::kTuple}); }
  Status tuple() {
    HADAL_ASSIGN_OR_RETURN(std::vector<Ref> items, pop_mark());
    return push({.kind = Kind::kTuple, .items = std::move(items)});
  }
  Status tuple_of(size_t size) {
    std::vector<Ref> items(size);
    for (size_t i = size; i-- > 0;) {
      HADAL_ASSIGN_OR_RETURN(items[i], pop());
    }
    return push({.kind = Kind::kTuple, .items = std::move(items)});
  }
  Status tuple1() { return tuple_of(1); }
  Status tuple2() { return tuple_of(2); }
  Status tuple3() { return tuple_of(3); }
  Status append() {
    HADAL_ASSIGN_OR_RETURN(const Ref item, pop());
    HADAL_ASSIGN_OR_RETURN(Value* const list, top(Kind::kList));
    list->items.push_back(item);
    return {};
  }
  Status appends() {
    HADAL_ASSIGN_OR_RETURN(const std::vector<Ref> items, pop_mark());
    HADAL_ASSIGN_OR_RETURN(Value* const list, top(Kind::kList));
    list->items.insert(list->items.end(), items.begin(), items.end());
    return {};
  }
  Status set_item() {
    HADAL_ASSIGN_OR_RETURN(const Ref value, pop());
    HADAL_ASSIGN_OR_RETURN(const Ref key, pop());
    HADAL_ASSIGN_OR_RETURN(Value* const dict, top(Kind::kDict));
    dict->items.insert(dict->items.end(), {key, value});
    return {};
  }
  Status set_items() {
    HADAL_ASSIGN_OR_RETURN(const std::vector<Ref> items, pop_mark());
    if (items.size() % 2 != 0) return fail("a key without a value");
    HADAL_ASSIGN_OR_RETURN(Value* const dict, top(Kind::kDict));
    dict->items.insert(dict->items.end(), items.begin(), items.end());
    return {};
  }
  Status reduce();
  Status build();

  Status put(size_t index) {
    if (stack_.size() <= floor()) return fail("nothing on the stack");
    if (index >= limits_.max_values) return fail("memo entry {}, at most {} accepted", index, limits_.max_values);
    if (index >= memo_.size()) memo_.resize(index + 1, kNoRef);
    memo_[index] = stack_.back();
    return {};
  }
  Status get(size_t index) {
    if (index >= memo_.size() || memo_[index] == kNoRef) return fail("memo entry {} was never written", index);
    stack_.push_back(memo_[index]);
    return {};
  }
  Status bin_put() {
    HADAL_ASSIGN_OR_RETURN(const uint8_t index, u8());
    return put(index);
  }
  Status long_bin_put() {
    HADAL_ASSIGN_OR_RETURN(const uint32_t index, u32());
    return put(index);
  }
  Status bin_get() {
    HADAL_ASSIGN_OR_RETURN(const uint8_t index, u8());
    return get(index);
  }
  Status long_bin_get() {
    HADAL_ASSIGN_OR_RETURN(const uint32_t index, u32());
    return get(index);
  }

  const Value& at(Ref ref) const { return values_[ref]; }
  bool is_int(Ref ref, int64_t number) const { return at(ref).kind == Kind::kInt && at(ref).number == number; }

  std::string_view in_;
  const PickleLimits& limits_;
  size_t position_ = 0;
  size_t op_offset_ = 0;
  const char* op_name_ = "";
  bool stopped_ = false;
  std::vector<Value> values_;
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;  // sizes of the stack
  std::vector<Ref> memo_;
};

const Machine::Opcode* Machine::find_opcode(uint8_t code) {
  using M = Machine;
  static constexpr std::array kOpcodes = {
      Opcode{0x80, "PROTO", &M::proto},
      Opcode{'c', "GLOBAL", &M::global},
      Opcode{'(', "MARK", &M::mark},
      Opcode{'.', "STOP", &M::stop},
      Opcode{'N', "NONE", &M::none},
      Opcode{0x88, "NEWTRUE", &M::new_true},
      Opcode{0x89, "NEWFALSE", &M::new_false},
      Opcode{'K', "BININT1", &M::bin_int1},
      Opcode{'J', "BININT", &M::bin_int},
      Opcode{'X', "BINUNICODE", &M::bin_unicode},
      Opcode{'C', "SHORT_BINBYTES", &M::short_bin_bytes},
      Opcode{'}', "EMPTY_DICT", &M::empty_dict},
      Opcode{']', "EMPTY_LIST", &M::empty_list},
      Opcode{')', "EMPTY_TUPLE", &M::empty_tuple},
      Opcode{'t', "TUPLE", &M::tuple},
      Opcode{0x85, "TUPLE1", &M::tuple1},
      Opcode{0x86, "TUPLE2", &M::tuple2},
      Opcode{0x87, "TUPLE3", &M::tuple3},
      Opcode{'a', "APPEND", &M::append},
      Opcode{'e', "APPENDS", &M::appends},
      Opcode{'s', "SETITEM", &M::set_item},
      Opcode{'u', "SETITEMS", &M::set_items},
      Opcode{'R', "REDUCE", &M::reduce},
      Opcode{'b', "BUILD", &M::build},
      Opcode{'q', "BINPUT", &M::bin_put},
      Opcode{'r', "LONG_BINPUT", &M::long_bin_put},
      Opcode{'h', "BINGET", &M::bin_get},
      Opcode{'j', "LONG_BINGET", &M::long_bin_get},
  };
  for (const Opcode& op : kOpcodes) {
    if (op.code == code) return &op;
  }
  return nullptr;
}

// numpy.dtype("f4", False, True), or numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b"b").
Status Machine::reduce() {
  HADAL_ASSIGN_OR_RETURN(const Ref args_ref, pop());
  HADAL_ASSIGN_OR_RETURN(const Ref callable, pop());
  if (at(callable).kind != Kind::kGlobal)
    return fail("calls a {}, expected a global", pickle_kind_name(at(callable).kind));
  if (at(args_ref).kind != Kind::kTuple) return fail("arguments in a {}", pickle_kind_name(at(args_ref).kind));
  const std::vector<Ref>& args = at(args_ref).items;
  const std::string_view name = at(callable).text;
  if (args.size() != 3) return fail("{} called with {} arguments, expected 3", name, args.size());
  if (name == kDtypeGlobal) {
    const Value& code = at(args[0]);
    if (code.kind != Kind::kString || (code.text != "f4" && code.text != "f8" && code.text != "O8")) {
      return refuse("dtype {}, expected f4, f8 or O8",
                    code.kind == Kind::kString ? quote_name(code.text) : "not a str");
    }
    return push({.kind = Kind::kDtype, .text = code.text});
  }
  if (name == kReconstruct) {
    if (at(args[0]).kind != Kind::kGlobal || at(args[0]).text != kNdarray) {
      return refuse("_reconstruct of something other than numpy.ndarray");
    }
    return push({.kind = Kind::kArray});
  }
  return refuse("{} cannot be called", name);
}

// dtype: (3, byte order, None, None, None, -1, -1, flags). ndarray: (1, shape, dtype, is Fortran order, payload).
Status Machine::build() {
  HADAL_ASSIGN_OR_RETURN(const Ref state_ref, pop());
  if (stack_.size() <= floor()) return fail("nothing on the stack");
  if (at(state_ref).kind != Kind::kTuple)
    return fail("state in a {}, expected a tuple", pickle_kind_name(at(state_ref).kind));
  const std::vector<Ref> state = at(state_ref).items;
  Value& value = values_[stack_.back()];
  if (value.kind == Kind::kDtype) {
    const bool is_state = state.size() == 8 && is_int(state[0], 3) && at(state[1]).kind == Kind::kString;
    if (!is_state) return refuse("a dtype's state of {} values, expected 8 of version 3", state.size());
    const std::string_view order = at(state[1]).text;
    if (order != (value.text == "O8" ? "|" : "<"))
      return refuse("dtype {} of byte order {}", value.text, quote_name(order));
  } else if (value.kind == Kind::kArray) {
    if (state.size() != 5 || !is_int(state[0], 1)) {
      return refuse("an array's state of {} values, expected 5 of version 1", state.size());
    }
    if (at(state[1]).kind != Kind::kTuple) return fail("shape in a {}", pickle_kind_name(at(state[1]).kind));
    if (at(state[2]).kind != Kind::kDtype || !at(state[2]).is_built) return fail("an array without a complete dtype");
    if (at(state[3]).kind != Kind::kBool || at(state[3]).number != 0) return refuse("an array in Fortran order");
    value.items = {state[1], state[2], state[4]};
  } else {
    return refuse("applied to a {}", pickle_kind_name(value.kind));
  }
  value.is_built = true;
  return {};
}

}  // namespace

const char* pickle_kind_name(PickleKind kind) {
  constexpr const char* kNames[] = {"None",  "bool", "int",    "str",   "bytes",  "list",
                                    "tuple", "dict", "global", "dtype", "ndarray"};
  return kNames[static_cast<size_t>(kind)];
}

Expected<PickleValues> run_pickle(std::string_view bytes, const PickleLimits& limits) {
  if (bytes.size() > limits.max_bytes) {
    return make_error(ErrorCode::kCorrupt, "pickle of {} bytes, at most {} accepted", bytes.size(), limits.max_bytes);
  }
  return Machine(bytes, limits).run();
}

}  // namespace hadal
