#include "server/openapi.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace hadal {
namespace {

constexpr ApiOperation kOperations[] = {
    {"POST", "/v1/chat/completions", "Answers a conversation", "ChatRequest", "ChatCompletion", true},
    {"POST", "/v1/completions", "Continues a text", "CompletionRequest", "Completion", true},
    {"POST", "/v1/chat/completions/render", "Shows the prompt of a chat request", "ChatRequest", "PromptList"},
    {"POST", "/v1/completions/render", "Shows the prompts of a completion request", "CompletionRequest", "PromptList"},
    {"POST", "/invocations", "A chat request if it has messages, else a completion request", "InvocationRequest",
     "Invocation", true},
    {"POST", "/v1/responses", "OpenAI's Responses API", "ResponsesRequest", "Response", true},
    {"GET", "/v1/responses/{id}", "A stored response", "", "Response"},
    {"DELETE", "/v1/responses/{id}", "Forgets a stored response", "", "DeletedResponse"},
    {"POST", "/v1/responses/{id}/cancel", "Always an error: no response runs in the background", "", "Response"},
    {"POST", "/v1/messages", "Anthropic's Messages API", "MessagesRequest", "MessagesAnswer", true, "MessagesError"},
    {"POST", "/v1/messages/count_tokens", "Prompt tokens of such a request", "CountTokensRequest", "TokenCount", false,
     "MessagesError"},
    {"GET", "/v1/models", "Lists the served names", "", "ModelList"},
    {"GET", "/v1/models/{id}", "One served name", "", "Model"},
    {"POST", "/tokenize", "Text or conversation to token ids", "TokenizeRequest", "Tokens"},
    {"POST", "/detokenize", "Token ids to text", "DetokenizeRequest", "Text"},
    {"GET", "/tokenizer_info", "What a client's own tokenizer has to agree with", "", "TokenizerInfo"},
    {"GET", "/health", "200 when a request sent now would be served"},
    {"GET", "/health/ready", "As /health"},
    {"GET", "/health/live", "200 while the process lives"},
    {"GET", "/ping", "As /health"},
    {"POST", "/ping", "As /health"},
    {"GET", "/version", "The server's version", "", "Version"},
    {"GET", "/load", "Requests received and not yet answered", "", "Load"},
    {"GET", "/metrics", "Metrics for Prometheus", "", "text/plain"},
    {"GET", "/hadal/certificate", "What `hadal certify` measured for this model and these numerics", "", "Certificate"},
    {"POST", "/reset_prefix_cache", "Drops the cached prefixes that no request uses"},
    {"POST", "/abort_requests", "Ends running requests by id", "AbortRequest", "Aborted"},
    {"GET", "/server_info", "The running configuration, in development mode", "", "ServerInfo"},
    {"GET", "/", "A page to chat with the model", "", "text/html"},
    {"GET", "/openapi.json", "This description", "", "OpenApi"},
    {"GET", "/docs", "This description as a page", "", "text/html"},
};

// "#X" -> "#/components/schemas/X", everywhere.
void expand_references(Json* schema) {
  if (schema->is_object()) {
    const auto reference = schema->find("$ref");
    if (reference != schema->end()) {
      *reference = "#/components/schemas/" + reference->get_ref<const std::string&>().substr(1);
    }
  }
  if (!schema->is_structured()) return;
  for (Json& item : *schema) expand_references(&item);
}

Json or_null(Json schema) {
  const auto type = schema.find("type");
  if (type != schema.end() && type->is_string() && !schema.contains("enum")) {
    *type = Json::array({*type, "null"});
    return schema;
  }
  return {{"anyOf", Json::array({std::move(schema), {{"type", "null"}}})}};
}

void add_fields(std::span<const ApiField> fields, Json* object) {
  for (const ApiField& field : fields) {
    Json schema = Json::parse(field.schema);
    expand_references(&schema);
    if (field.nullable && !field.required) schema = or_null(std::move(schema));
    if (*field.meaning != '\0') schema["description"] = field.meaning;
    (*object)["properties"][field.name] = std::move(schema);
    if (field.required) (*object)["required"].push_back(field.name);
  }
}

void add_objects(std::span<const ApiObject> objects, Json* schemas) {
  for (const ApiObject& object : objects) {
    Json& schema = (*schemas)[object.name];
    schema["type"] = "object";
    add_fields(object.fields, &schema);
    add_fields(object.more_fields, &schema);
  }
}

Json reference_to(const char* object) { return {{"$ref", std::string("#/components/schemas/") + object}}; }

Json content_of(const ApiOperation& operation) {
  const std::string_view answer = operation.answer;
  if (answer.starts_with("text/")) return {{std::string(answer), {{"schema", {{"type", "string"}}}}}};
  Json content = {{"application/json", {{"schema", reference_to(operation.answer)}}}};
  // OpenAPI 3.1 has no schema for the events of a stream.
  if (operation.streams) content["text/event-stream"] = Json::object();
  return content;
}

// Errors of the transport (key, path, size) have OpenAI's shape everywhere.
Json error_schema(const ApiOperation& operation) {
  if (std::string_view(operation.error) == "Error") return reference_to("Error");
  return {{"anyOf", Json::array({reference_to(operation.error), reference_to("Error")})}};
}

Json answers_of(const ApiOperation& operation) {
  Json ok = {{"description", "Success"}};
  if (*operation.answer != '\0') ok["content"] = content_of(operation);
  Json answers = {{"200", std::move(ok)}};
  for (const char* status : {"400", "401", "404", "405", "413", "415", "499", "503", "504"}) {
    answers[status] = {{"description", "Error"},
                       {"content", {{"application/json", {{"schema", error_schema(operation)}}}}}};
  }
  return answers;
}

Json operation_json(const ApiOperation& operation) {
  Json json = {{"summary", operation.summary}, {"operationId", std::string(operation.method) + " " + operation.path}};
  std::string_view path = operation.path;
  for (size_t open = path.find('{'); open != std::string_view::npos; open = path.find('{', open + 1)) {
    const std::string_view name = path.substr(open + 1, path.find('}', open) - open - 1);
    json["parameters"].push_back(
        {{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}, {"minLength", 1}}}});
  }
  if (*operation.request != '\0') {
    json["requestBody"] = {{"required", true},
                           {"content", {{"application/json", {{"schema", reference_to(operation.request)}}}}}};
  }
  json["responses"] = answers_of(operation);
  return json;
}

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string field_rows(std::span<const ApiField> fields) {
  std::string rows;
  for (const ApiField& field : fields) {
    rows += fmt::format("<tr><td><code>{}</code>{}<td>{}\n", field.name, field.required ? " (required)" : "",
                        field.meaning);
  }
  return rows;
}

std::string rows_of(std::string_view name) {
  for (const auto objects : {api_request_objects(), api_agent_objects()}) {
    for (const ApiObject& object : objects) {
      if (name == object.name) return field_rows(object.fields) + field_rows(object.more_fields);
    }
  }
  return "";
}

}  // namespace

std::span<const ApiOperation> api_operations() { return kOperations; }

Json openapi_document(const std::string& version) {
  Json document = {{"openapi", "3.1.0"},
                   {"info",
                    {{"title", "hadal"},
                     {"version", version},
                     {"description",
                      "The OpenAI API with vLLM's extensions. Unknown request fields are ignored, null is the same as "
                      "absent."}}}};
  for (const ApiOperation& operation : kOperations) {
    document["paths"][operation.path][lower_case(operation.method)] = operation_json(operation);
  }
  Json& components = document["components"];
  add_objects(api_request_objects(), &components["schemas"]);
  add_objects(api_answer_objects(), &components["schemas"]);
  add_objects(api_agent_objects(), &components["schemas"]);
  components["securitySchemes"]["key"] = {{"type", "http"}, {"scheme", "bearer"}};
  document["security"] = Json::array({Json::object(), {{"key", Json::array()}}});
  return document;
}

std::string api_docs_page(const std::string& version) {
  std::string page = fmt::format(
      "<!doctype html><html lang=en><meta charset=utf-8><title>hadal {0}: API</title>"
      "<style>body{{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}"
      "td{{vertical-align:top;padding:0 1em 0 0}}summary{{cursor:pointer}}</style>"
      "<h1>hadal {0}</h1><p>The OpenAI API with vLLM's extensions; <a href=openapi.json>openapi.json</a> says the same "
      "to programs.\n",
      version);
  for (const ApiOperation& operation : kOperations) {
    const std::string rows = rows_of(operation.request);
    const std::string head = fmt::format("<code>{} {}</code> {}", operation.method, operation.path, operation.summary);
    page += rows.empty() ? fmt::format("<p>{}\n", head)
                         : fmt::format("<details><summary>{}</summary><table>\n{}</table></details>\n", head, rows);
  }
  return page + "</html>\n";
}

}  // namespace hadal
