#include "base/check.h"
#include "formats/pickle.h"

namespace hadal {
namespace {

// The first objects of every such pickle, in the order of their memo numbers.
constexpr size_t kMemoReconstruct = 0, kMemoNdarray = 1, kMemoByteB = 3, kMemoDtype = 6;
// CPython's pickler fills lists and dicts in batches of this many items.
constexpr size_t kBatch = 1000;

}  // namespace

PickleWriter::PickleWriter() {
  out_ = "\x80\x03";
  global("numpy.core.multiarray\n_reconstruct\n");
  global("numpy\nndarray\n");
  integer(0);
  op('\x85');
  put();
  out_ += "C\x01";
  op('b');
  put();
  op('\x87');
  put();
  op('R');
  put();
  out_ += "(K\x01)";  // state: version 1, shape ()
  global("numpy\ndtype\n");
  dtype("O8", '|', 63);
  out_ += "\x89]";  // not in Fortran order; the list of items
  put();
}

std::string PickleWriter::finish() && {
  op('a');
  op('t');
  put();
  out_ += "b.";
  return std::move(out_);
}

void PickleWriter::null() { op('N'); }

void PickleWriter::integer(int value) {
  if (value >= 0 && value <= 255) {
    op('K');
    byte(value);
  } else {
    op('J');
    i32(value);
  }
}

void PickleWriter::string(std::string_view text) {
  const auto [entry, is_new] = strings_.try_emplace(std::string(text), num_memo_);
  if (!is_new) return get(entry->second);
  op('X');
  i32(static_cast<int>(text.size()));
  out_ += text;
  put();
}

void PickleWriter::array(std::span<const int> shape, std::span<const float> values) {
  HADAL_CHECK(shape.size() >= 1 && shape.size() <= 3 && values.size() * sizeof(float) <= 255, "array too large");
  reconstruct();
  out_ += "(K\x01";
  for (const int dim : shape) integer(dim);
  constexpr char kTupleOps[] = {'\x85', '\x86', '\x87'};
  op(kTupleOps[shape.size() - 1]);
  put();
  if (f32_dtype_ == 0) {
    get(kMemoDtype);
    f32_dtype_ = num_memo_ + 2;  // behind the code's string and the arguments
    dtype("f4", '<', 0);
  } else {
    get(f32_dtype_);
  }
  op('\x89');
  op('C');
  byte(static_cast<int>(values.size_bytes()));
  out_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  put();
  op('t');
  put();
  op('b');
}

void PickleWriter::begin_dict() {
  op('}');
  put();
}

void PickleWriter::begin_list() {
  op(']');
  put();
}

void PickleWriter::before_item(size_t index, size_t size) {
  if (size > 1 && index % kBatch == 0) op('(');
}

void PickleWriter::after_dict_item(size_t index, size_t size) {
  const bool is_last = index + 1 == size;
  if (size == 1) return op('s');
  if ((index + 1) % kBatch == 0 || is_last) op('u');
  if (is_last && size % kBatch == 0) out_ += "(u";  // CPython starts another batch before it looks for items
}

void PickleWriter::after_list_item(size_t index, size_t size) {
  if (size == 1) return op('a');
  if ((index + 1) % kBatch == 0 || index + 1 == size) op('e');
}

void PickleWriter::i32(int value) { out_.append(reinterpret_cast<const char*>(&value), sizeof value); }

void PickleWriter::global(std::string_view module_and_name) {
  op('c');
  out_ += module_and_name;
  put();
}

void PickleWriter::put() {
  if (num_memo_ <= 255) {
    op('q');
    byte(static_cast<int>(num_memo_));
  } else {
    op('r');
    i32(static_cast<int>(num_memo_));
  }
  ++num_memo_;
}

void PickleWriter::get(size_t index) {
  if (index <= 255) {
    op('h');
    byte(static_cast<int>(index));
  } else {
    op('j');
    i32(static_cast<int>(index));
  }
}

void PickleWriter::reconstruct() {
  get(kMemoReconstruct);
  get(kMemoNdarray);
  integer(0);
  op('\x85');
  put();
  get(kMemoByteB);
  op('\x87');
  put();
  op('R');
  put();
}

// Arguments and state of a numpy.dtype whose global is on the stack.
void PickleWriter::dtype(std::string_view code, char order, int flags) {
  string(code);
  out_ += "\x89\x88\x87";
  put();
  op('R');
  put();
  out_ += "(K\x03";
  string(std::string_view(&order, 1));
  out_ += "NNN";
  integer(-1);
  integer(-1);
  integer(flags);
  op('t');
  put();
  op('b');
}

}  // namespace hadal
