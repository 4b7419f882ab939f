// The corner of Python's pickle format that NumPy needs to store a dictionary of small float arrays, as Intel Neural
// Compressor's .npz files do. Reading runs a stack machine that knows 28 opcodes and three globals
// (numpy.core.multiarray._reconstruct, numpy.ndarray, numpy.dtype), calls nothing, and refuses everything else by name
// and offset. Facts: spec/gaudi-pipeline.md 3.3; opcodes: Python's pickletools.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

struct PickleLimits {
  size_t max_bytes = size_t{64} << 20;
  size_t max_values = size_t{4} << 20;  // objects made, memo entries, and values of the result, each
  int max_depth = 32;                   // nesting of the result
};

// A pickled 0-d object array (dtype O8, shape ()) as the object inside it: None, bool, int and str as themselves, lists
// and tuples as arrays, dicts as objects (keys str, or int as decimal text), float arrays (f4, f8) as nested arrays of
// their shape. Errors: kUnsupported for an opcode, global or dtype outside the subset, kCorrupt for bytes that
// contradict themselves, both naming it and its byte offset.
Expected<Json> object_array_from_pickle(std::string_view bytes, const PickleLimits& limits = {});

// Writes protocol 3 the way CPython's pickler does for the same values, memo numbers included. Calls must nest as the
// values do; the writer does not check. Equal strings are taken for the same object.
class PickleWriter {
 public:
  // Up to and including the list's opening of the 0-d object array; its one item follows, then finish().
  PickleWriter();

  void null();
  void integer(int value);
  void string(std::string_view text);
  // F32, C order. Requires 1 to 255 in each dimension, rank 1 to 3 and at most 255 bytes.
  void array(std::span<const int> shape, std::span<const float> values);

  // A dict of `size` items: begin_dict(size), then before_item(i), key, value, after_item(i) for each item.
  // A list likewise, with a value alone.
  void begin_dict();
  void begin_list();
  void before_item(size_t index, size_t size);
  void after_dict_item(size_t index, size_t size);
  void after_list_item(size_t index, size_t size);

  std::string finish() &&;

 private:
  void op(char code) { out_ += code; }
  void byte(int value) { out_ += static_cast<char>(value); }
  void i32(int value);
  void global(std::string_view module_and_name);
  void put();  // memoises the top of the stack under the next number
  void get(size_t index);
  void reconstruct();  // an empty ndarray
  void dtype(std::string_view code, char order, int flags);

  std::string out_;
  size_t num_memo_ = 0;
  std::unordered_map<std::string, size_t> strings_;
  size_t f32_dtype_ = 0;  // memo number, 0: not yet written
};

}  // namespace hadal
