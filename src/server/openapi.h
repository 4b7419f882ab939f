// The API described as an OpenAPI 3.1 document, made from tables: operations (openapi.cc) and the fields of their
// bodies (openapi_requests.cc, openapi_answers.cc, openapi_agents.cc). Clients are generated from it, and tests
// generate requests from it.
#pragma once

#include <span>
#include <string>

#include "base/json.h"

namespace hadal {

struct ApiField {
  const char* name;
  const char* schema;   // JSON Schema as text; "#X" inside "$ref" is short for "#/components/schemas/X"
  const char* meaning;  // "": the name says it
  bool required = false;
  bool nullable = true;  // null counts as absent; requests only have such fields
};

// A body or a part of one. Fields beyond the listed ones are allowed: servers ignore them, answers may get more.
struct ApiObject {
  const char* name;
  std::span<const ApiField> fields;
  std::span<const ApiField> more_fields = {};  // shared with other objects
};

struct ApiOperation {
  const char* method;
  const char* path;  // "/v1/models/{id}"
  const char* summary;
  const char* request = "";  // name of an ApiObject; "": no body
  const char* answer = "";   // name of an ApiObject; "": an empty body; "text/plain", "text/html": text
  bool streams = false;      // server-sent events when the request says so
  const char* error = "Error";
};

std::span<const ApiOperation> api_operations();
std::span<const ApiObject> api_request_objects();
std::span<const ApiObject> api_answer_objects();
std::span<const ApiObject> api_agent_objects();  // of /v1/responses and /v1/messages, both ways

Json openapi_document(const std::string& version);
// All operations as one page of HTML without any script.
std::string api_docs_page(const std::string& version);

}  // namespace hadal
