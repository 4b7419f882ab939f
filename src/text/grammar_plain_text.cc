#include "text/grammar_plain_text.h"

#include "base/utf8.h"

namespace hadal {
namespace {

bool is_plain(char32_t c) { return c >= 0x20 && c != '"' && c != '\\' && c != '<'; }

struct ByteRange {
  int low, high;
};
constexpr ByteRange kPlainAscii[] = {{0x20, '"' - 1}, {'"' + 1, '<' - 1}, {'<' + 1, '\\' - 1}, {'\\' + 1, 0x7F}};

// Unicode's table 3-7: lead bytes, the second byte, and how many follow that one.
struct Sequence {
  ByteRange lead, second;
  int num_more;
};
constexpr Sequence kSequences[] = {{{0xC2, 0xDF}, {0x80, 0xBF}, 0}, {{0xE0, 0xE0}, {0xA0, 0xBF}, 1},
                                   {{0xE1, 0xEC}, {0x80, 0xBF}, 1}, {{0xED, 0xED}, {0x80, 0x9F}, 1},
                                   {{0xEE, 0xEF}, {0x80, 0xBF}, 1}, {{0xF0, 0xF0}, {0x90, 0xBF}, 2},
                                   {{0xF1, 0xF3}, {0x80, 0xBF}, 2}, {{0xF4, 0xF4}, {0x80, 0x8F}, 2}};

}  // namespace

size_t plain_text_length(std::string_view text) {
  size_t length = 0;
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    if (step.kind != Utf8Step::kValid || !is_plain(step.code_point)) return 0;
    text.remove_prefix(step.num_bytes);
    ++length;
  }
  return length;
}

// Neither calls nor an end of the rule: a thread here is no other threads as well.
bool GrammarPlainRuns::is_only_itself(uint32_t node) const {
  return !data_.nodes[node].accepting && data_.nodes[node].first_call == data_.nodes[node + 1].first_call;
}

// Whether each of the bytes, with all continuations, leads to one and the same target.
bool GrammarPlainRuns::leads_to(uint32_t node, int low, int high, int num_continuations, uint32_t& target) const {
  int next = low;
  for (uint32_t i = data_.nodes[node].first_edge; i < data_.nodes[node + 1].first_edge; ++i) {
    const GrammarData::Edge& edge = data_.edges[i];
    if (edge.high < low || edge.low > high) continue;
    if (edge.low > next || (edge.low < next && next != low)) return false;  // a gap, or edges that overlap
    if (num_continuations == 0) {
      if (target != kNone && target != edge.target) return false;
      target = edge.target;
    } else if (!is_only_itself(edge.target) || !leads_to(edge.target, 0x80, 0xBF, num_continuations - 1, target)) {
      return false;
    }
    next = edge.high + 1;
  }
  return next > high;
}

uint32_t GrammarPlainRuns::find_next(uint32_t node) const {
  uint32_t target = kNone;
  for (const ByteRange& range : kPlainAscii) {
    if (!leads_to(node, range.low, range.high, 0, target)) return kNone;
  }
  for (const Sequence& sequence : kSequences) {
    for (int lead = sequence.lead.low; lead <= sequence.lead.high; ++lead) {
      uint32_t second = kNone;
      if (!leads_to(node, lead, lead, 0, second) || !is_only_itself(second)) return kNone;
      if (!leads_to(second, sequence.second.low, sequence.second.high, sequence.num_more, target)) return kNone;
    }
  }
  return target;
}

uint32_t GrammarPlainRuns::next_of(uint32_t node) {
  const auto [found, is_new] = next_.try_emplace(node, kNone);
  if (is_new) found->second = find_next(node);
  return found->second;
}

bool GrammarPlainRuns::takes_none(uint32_t node) const {
  for (uint32_t i = data_.nodes[node].first_edge; i < data_.nodes[node + 1].first_edge; ++i) {
    const GrammarData::Edge& edge = data_.edges[i];
    if (edge.high >= 0xC2) return false;
    for (const ByteRange& range : kPlainAscii) {
      if (edge.low <= range.high && edge.high >= range.low) return false;
    }
  }
  return true;
}

GrammarPlainRuns::Run GrammarPlainRuns::run_of(uint32_t node, size_t limit) {
  Run run;
  while (run.length < limit) {
    const uint32_t next = next_of(node);
    if (next == kNone) {
      run.is_exact = takes_none(node) && (run.length == 0 || is_only_itself(node));
      return run;
    }
    ++run.length;
    if (next == node) {
      if (is_only_itself(node)) run.length = limit;
      return run;
    }
    node = next;
    if (!is_only_itself(node)) return run;
  }
  return run;
}

}  // namespace hadal
