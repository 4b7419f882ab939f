// Reading of the fields that several requests share; private to the protocol parsers.
#pragma once

#include "server/field_reader.h"
#include "server/protocol.h"

namespace hadal {

// Fields that mean something this server does not do: naming one with a value other than null, false, "" or [] is an
// error, so that nobody believes it was obeyed.
struct RefusedField {
  const char* name;
  const char* message;
};

void read_generation_params(FieldReader& reader, const ProtocolOptions& options, GenerationParams* params);
void read_conversation(FieldReader& reader, const ProtocolOptions& options, ConversationInput* conversation);
// protocol_tools.cc. `tools` into the conversation, tool_choice and parallel_tool_calls into the other.
void read_tools(FieldReader& reader, const ProtocolOptions& options, ConversationInput* conversation);
void read_tool_use(FieldReader& reader, const ProtocolOptions& options, ConversationInput* conversation,
                   ToolUse* tool_use);
// protocol_structured.cc. response_format, guided_*, structured_outputs.
void read_structured_output(FieldReader& reader, StructuredOutput* output);
void refuse_fields(FieldReader& reader, const RefusedField* begin, const RefusedField* end);

}  // namespace hadal
