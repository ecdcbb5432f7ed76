// Flags of the form --name=value for the small programs of the harness, which
// hand the rest of their arguments to another library. (The command line of
// shardproof itself is in tools/cli.)
#ifndef SHARDPROOF_TOOLS_HARNESS_COMMAND_LINE_H_
#define SHARDPROOF_TOOLS_HARNESS_COMMAND_LINE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "reference/status.h"

namespace shardproof {

// Removes --name=value (or --name value) from the arguments and reads it;
// leaves `value` alone where it is absent. kInvalidArgument says what is wrong
// with a value. Lists are separated by commas.
Status TakeFlag(int* argc, char** argv, std::string_view name,
                std::string* value);
Status TakeFlag(int* argc, char** argv, std::string_view name,
                std::vector<int>* value);
Status TakeFlag(int* argc, char** argv, std::string_view name, uint64_t* value);
Status TakeFlag(int* argc, char** argv, std::string_view name, double* value);
// --name alone.
bool TakeSwitch(int* argc, char** argv, std::string_view name);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_COMMAND_LINE_H_
