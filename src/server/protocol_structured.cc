// The fields that ask for structured output, in OpenAI's and both of vLLM's spellings.
#include "server/protocol_common.h"

namespace hadal {
namespace {

using Kind = StructuredOutput::Kind;

constexpr size_t kMaxSourceBytes = size_t{256} << 10;
constexpr size_t kMaxRegexBytes = StructuredOutput::kMaxRegexBytes;
constexpr size_t kMaxChoices = 4096;

// Reads one object's fields; errors name `prefix` + field and go to `outer`, which may be the reader itself.
class StructuredReader {
 public:
  StructuredReader(FieldReader& outer, FieldReader& reader, std::string prefix, StructuredOutput* output)
      : outer_(outer), reader_(reader), prefix_(std::move(prefix)), output_(output) {}
  ~StructuredReader() { pass_error(); }

  const Json* find(const char* name) const { return reader_.find(name); }

  // Only one may be chosen.
  bool choose(Kind kind, const char* field) {
    pass_error();
    if (output_->kind != Kind::kNone) {
      outer_.fail(bad_request(prefix_ + field, "You can only use one kind of guided decoding, got {} and {}",
                              output_->field, prefix_ + field));
      return false;
    }
    output_->kind = kind;
    output_->field = prefix_ + field;
    return true;
  }

  // A schema as an object, as a boolean, or as the JSON text of either.
  void schema(const char* name) {
    const Json* value = find(name);
    if (value == nullptr || !choose(Kind::kJsonSchema, name)) return;
    output_->schema = *value;
    if (value->is_string()) {
      auto parsed = parse_json(value->get_ref<const std::string&>(), {.max_bytes = kMaxSourceBytes});
      if (!parsed) return fail(name, fmt::format("is no JSON: {}", parsed.error().message));
      output_->schema = std::move(*parsed);
    }
    if (!output_->schema.is_object() && !output_->schema.is_boolean()) fail(name, "must be a JSON schema (an object)");
  }

  void source(const char* name, Kind kind, size_t max_bytes) {
    const Json* value = find(name);
    if (value == nullptr || !choose(kind, name)) return;
    reader_.string(name, max_bytes, &output_->source);
  }

  void choices(const char* name) {
    const Json* value = find(name);
    if (value == nullptr || !choose(Kind::kChoice, name)) return;
    reader_.strings(name, kMaxChoices, kMaxRegexBytes, false, &output_->choices);
    if (value->is_array() && value->empty()) fail(name, "must have at least one entry");
  }

  void json_object(const char* name) {
    bool wanted = false;
    reader_.boolean(name, &wanted);
    if (wanted) choose(Kind::kJsonObject, name);
  }

  void no_structural_tag(const char* name) {
    if (find(name) != nullptr) fail(name, "is not supported by this server");
  }

  void fail(const char* name, std::string_view what) {
    outer_.fail(bad_request(prefix_ + name, "{}{} {}", prefix_, name, what));
  }

 private:
  void pass_error() {
    if (&reader_ == &outer_ || !reader_.error()) return;
    ApiError error = *reader_.error();
    error.message = prefix_ + error.message;
    error.param = prefix_ + error.param;
    outer_.fail(std::move(error));
  }

  FieldReader& outer_;
  FieldReader& reader_;
  const std::string prefix_;
  StructuredOutput* output_;
};

void read_json_schema(FieldReader& reader, const Json& format, StructuredOutput* output) {
  const auto schema = format.find("json_schema");
  if (schema == format.end() || !schema->is_object() || !schema->contains("schema")) {
    return reader.fail(bad_request("response_format.json_schema",
                                   "response_format of type json_schema needs `json_schema`: an object with the key "
                                   "`schema`"));
  }
  FieldReader fields(*schema);
  StructuredReader(reader, fields, "response_format.json_schema.", output).schema("schema");
}

void read_response_format(FieldReader& reader, StructuredOutput* output) {
  const Json* format = reader.find("response_format");
  if (format == nullptr) return;
  if (!format->is_object()) {
    return reader.fail(bad_request("response_format", "response_format must be an object with a type"));
  }
  FieldReader fields(*format);
  StructuredReader inner(reader, fields, "response_format.", output);
  std::string type;
  fields.string("type", 64, &type);
  if (type == "text" || fields.error()) return;
  if (type == "json_object") {
    inner.choose(Kind::kJsonObject, "type");
  } else if (type == "json_schema") {
    read_json_schema(reader, *format, output);
  } else {
    reader.fail(bad_request("response_format",
                            "response_format: type must be text, json_object or json_schema, got \"{}\"; other types "
                            "are not supported by this server",
                            type));
  }
}

void read_structured_outputs(FieldReader& reader, StructuredOutput* output) {
  const Json* object = reader.find("structured_outputs");
  if (object == nullptr) return;
  if (!object->is_object()) {
    return reader.fail(bad_request("structured_outputs", "structured_outputs must be an object"));
  }
  FieldReader fields(*object);
  StructuredReader inner(reader, fields, "structured_outputs.", output);
  inner.schema("json");
  inner.source("regex", Kind::kRegex, kMaxRegexBytes);
  inner.choices("choice");
  inner.source("grammar", Kind::kGrammar, kMaxSourceBytes);
  inner.json_object("json_object");
  inner.no_structural_tag("structural_tag");
  bool no_whitespace = false;
  fields.boolean("disable_any_whitespace", &no_whitespace);
  output->any_whitespace = !no_whitespace;
}

}  // namespace

void read_structured_output(FieldReader& reader, StructuredOutput* output) {
  read_response_format(reader, output);
  StructuredReader guided(reader, reader, "", output);
  guided.schema("guided_json");
  guided.source("guided_regex", Kind::kRegex, kMaxRegexBytes);
  guided.choices("guided_choice");
  guided.source("guided_grammar", Kind::kGrammar, kMaxSourceBytes);
  guided.json_object("guided_json_object");
  read_structured_outputs(reader, output);
}

}  // namespace hadal
