// The tables of the history, and how an older file becomes a current one.
//
// The version is SQLite's user_version. Step i of kSteps makes version i + 1
// out of version i, so a new version is one more step, and none that was
// released ever changes. A file of a later version is refused: what it means
// is not known here.
#ifndef SHARDPROOF_REPORTS_STORE_SCHEMA_H_
#define SHARDPROOF_REPORTS_STORE_SCHEMA_H_

#include <span>

#include "reference/status.h"
#include "reports/store/sqlite.h"

namespace shardproof {

std::span<const char* const> SchemaSteps();

// All missing steps in one transaction, or none. kInvalidArgument for a file of
// a later version and for a database of another program.
Status Migrate(Database& database, std::span<const char* const> steps);
// For a database that cannot be written: that its version is the current one.
Status CheckVersion(Database& database, std::span<const char* const> steps);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STORE_SCHEMA_H_
