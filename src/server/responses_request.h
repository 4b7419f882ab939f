// Requests of OpenAI's Responses API as chat requests. Conversations, not features: tools run on the client's side,
// nothing runs in the background.
#pragma once

#include <string>

#include "base/json.h"
#include "server/api_error.h"

namespace hadal {

struct ResponsesRequest {
  Json chat;      // body of a chat request, without messages
  Json messages;  // `input` as chat messages
  std::string instructions;
  std::string previous_response_id;
  bool store = true;
  Json echo;  // the fields of the response object that repeat the request
};

// Errors: 400 naming the field, item or part: wrong types, what needs other services (background, conversations,
// built-in tools, files), or truncation, which would drop parts of the conversation unseen.
ApiExpected<ResponsesRequest> parse_responses_request(const Json& body);

// Items of `input` or `output` as chat messages; calls with the status "incomplete" are left out. Errors: as above.
ApiExpected<Json> messages_of_items(const Json& items);

// The whole chat request; `earlier`: the messages of the previous response, an array.
Json chat_request_of(const ResponsesRequest& request, const Json& earlier);

}  // namespace hadal
