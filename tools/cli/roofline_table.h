// What a person sees of `shardproof roofline`: a line for each record.
#ifndef SHARDPROOF_TOOLS_CLI_ROOFLINE_TABLE_H_
#define SHARDPROOF_TOOLS_CLI_ROOFLINE_TABLE_H_

#include <string>
#include <vector>

#include "reports/record.h"

namespace shardproof {

class RooflineTable {
 public:
  void Add(const Record& record);
  size_t size() const { return rows_.size(); }
  // Emulated: case, sizes and verdicts alone.
  std::string Text() const;
  // "bf16 4096 x 4096 rms": the values of a record's parameters, without those that every line would share.
  static std::string Sizes(const Record& record);

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<std::string> notes_;  // Sentences below the table.
  bool times_ = false;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ROOFLINE_TABLE_H_
