// Every way in which a history cannot be used, and what is said about it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sqlite3.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "reports/store/schema.h"
#include "reports/store/store.h"
#include "reports/store/testing/store_fixture.h"

namespace shardproof {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ErrorsTest : public StoreFixture {
 protected:
  // One sentence, with the file's name, of this code.
  void ExpectRefused(const Status& status, StatusCode code,
                     const std::string& what) {
    EXPECT_EQ(status.code(), code) << status.ToString();
    const std::string message(status.message());
    EXPECT_THAT(message, HasSubstr(folder_.string()));
    EXPECT_THAT(message, HasSubstr(what));
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  // A history with a few hundred records in `path_`.
  void Fill() {
    auto store = Store::Open(path_);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    Launch launch = LaunchAt(0, {});
    for (int i = 0; i < 300; ++i) {
      launch.records.push_back(Sample("ring", i, 5));
    }
    ASSERT_TRUE(store->Import(launch).ok());
  }
  // Runs `body` in a process for which the permissions of files hold, even
  // where the tests are run by root. Gives the message of its Status.
  static std::string Unprivileged(const std::function<Status()>& body) {
    std::array<int, 2> ends = {};
    EXPECT_EQ(pipe(ends.data()), 0);
    const pid_t child = fork();
    if (child == 0) {
      __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3,
                                         .pid = 0};
      std::array<__user_cap_data_struct, 2> none = {};
      syscall(SYS_capset, &header, none.data());
      const std::string text = body().ToString();
      _exit(write(ends[1], text.data(), text.size()) ==
                    static_cast<ssize_t>(text.size())
                ? 0
                : 1);
    }
    close(ends[1]);
    std::string text(4096, '\0');
    const ssize_t size = read(ends[0], text.data(), text.size());
    close(ends[0]);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    text.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    return text;
  }
  Status WriteOne() {
    auto store = Store::Open(path_);
    if (!store.ok()) return store.status();
    return store->Import(LaunchAt(1, {Sample("ring", 1)})).status();
  }
  StatusOr<size_t> CountRecords() {
    SP_ASSIGN_OR_RETURN(Store store, Store::Open(path_, StoreMode::kReadOnly));
    SP_ASSIGN_OR_RETURN(const auto launches, store.Launches({.last = 0}));
    size_t records = 0;
    for (const Launch& launch : launches) records += launch.records.size();
    return records;
  }
};

TEST_F(ErrorsTest, NothingThere) {
  ExpectRefused(Store::Open(path_, StoreMode::kReadOnly).status(),
                StatusCode::kUnavailable, "shardproof run");
  EXPECT_FALSE(fs::exists(path_));
}

TEST_F(ErrorsTest, MakesFolders) {
  path_ = (folder_ / "a" / "b" / "history.db").string();
  EXPECT_TRUE(WriteOne().ok());
}

TEST_F(ErrorsTest, AFolderInItsPlace) {
  fs::create_directory(path_);
  ExpectRefused(Store::Open(path_).status(), StatusCode::kInvalidArgument,
                "is a folder");
}

TEST_F(ErrorsTest, AFileWhereAFolderShouldBe) {
  std::ofstream(folder_ / "file") << "x";
  ExpectRefused(
      Store::Open((folder_ / "file" / "history.db").string()).status(),
      StatusCode::kUnavailable, "cannot make the folder");
}

TEST_F(ErrorsTest, NotADatabase) {
  const std::string thesis(5000, 'x');
  std::ofstream(path_) << thesis;
  for (const StoreMode mode : {StoreMode::kReadWrite, StoreMode::kReadOnly}) {
    ExpectRefused(Store::Open(path_, mode).status(),
                  StatusCode::kInvalidArgument, "not a history");
  }
  std::ifstream in(path_);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), thesis);
}

TEST_F(ErrorsTest, ADatabaseOfAnotherProgram) {
  {
    auto database = Database::Open(path_, StoreMode::kReadWrite, 100);
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(database->Execute("CREATE TABLE records (a)").ok());
  }
  ExpectRefused(Store::Open(path_).status(), StatusCode::kInvalidArgument,
                "another program");
}

TEST_F(ErrorsTest, ASchemaFromTheFuture) {
  Fill();
  {
    auto database = Database::Open(path_, StoreMode::kReadWrite, 100);
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(database->Execute("PRAGMA user_version = 7").ok());
  }
  for (const StoreMode mode : {StoreMode::kReadWrite, StoreMode::kReadOnly}) {
    ExpectRefused(Store::Open(path_, mode).status(),
                  StatusCode::kInvalidArgument,
                  "has schema 7, and this version reads up to 1");
  }
}

TEST_F(ErrorsTest, AnOlderSchemaIsBroughtUpToDateOrNotTouched) {
  Fill();
  auto steps = [](std::initializer_list<const char*> more) {
    std::vector<const char*> all(SchemaSteps().begin(), SchemaSteps().end());
    all.insert(all.end(), more);
    return all;
  };
  auto database = Database::Open(path_, StoreMode::kReadWrite, 100);
  ASSERT_TRUE(database.ok());
  const auto newer = steps({"ALTER TABLE records ADD COLUMN more TEXT"});
  ExpectRefused(CheckVersion(*database, newer), StatusCode::kInvalidArgument,
                "has schema 1");
  // The last step fails: the ones before it are undone.
  const auto broken = steps({newer.back(), "CREATE TABLE records (a)"});
  EXPECT_EQ(Migrate(*database, broken).code(), StatusCode::kInternal);
  EXPECT_EQ(*database->IntOf("PRAGMA user_version"), 1);
  EXPECT_FALSE(database->IntOf("SELECT more FROM records").ok());

  ASSERT_TRUE(Migrate(*database, newer).ok());
  EXPECT_EQ(*database->IntOf("PRAGMA user_version"), 2);
  EXPECT_TRUE(database->IntOf("SELECT more FROM records").ok());
  EXPECT_EQ(*database->IntOf("SELECT count(*) FROM records"), 300);
  EXPECT_TRUE(CheckVersion(*database, newer).ok());
}

TEST_F(ErrorsTest, Locked) {
  Fill();
  auto other = Database::Open(path_, StoreMode::kReadWrite, 100);
  ASSERT_TRUE(other.ok());
  auto transaction = Transaction::Begin(*other);
  ASSERT_TRUE(transaction.ok());
  auto store = Store::Open(path_, StoreMode::kReadWrite, /*timeout_ms=*/50);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  ExpectRefused(store->Import(LaunchAt(1, {})).status(),
                StatusCode::kUnavailable, "is locked by another process");
  // Readers do not wait, and read what was there.
  EXPECT_EQ(store->Keys()->size(), 300u);
  ASSERT_TRUE(transaction->Commit().ok());
  EXPECT_TRUE(store->Import(LaunchAt(1, {})).ok());
}

TEST_F(ErrorsTest, ReadOnlyFile) {
  Fill();
  fs::permissions(path_, fs::perms::owner_read);
  // At once, and not when the first record is lost.
  const std::string message =
      Unprivileged([&] { return Store::Open(path_).status(); });
  EXPECT_THAT(message, HasSubstr("unavailable"));
  EXPECT_THAT(message, HasSubstr(path_));
  EXPECT_THAT(message, HasSubstr("read-only"));
  EXPECT_EQ(Unprivileged([&] { return CountRecords().status(); }), "ok");
  EXPECT_EQ(*CountRecords(), 300u);
}

TEST_F(ErrorsTest, ReadOnlyFolder) {
  Fill();
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_THAT(Unprivileged([&] { return WriteOne(); }),
              HasSubstr("unavailable"));
  // Reading needs no file beside it.
  EXPECT_EQ(Unprivileged([&]() -> Status {
              SP_ASSIGN_OR_RETURN(const size_t records, CountRecords());
              return records == 300 ? OkStatus() : DataLoss("{}", records);
            }),
            "ok");
  path_ = (folder_ / "new.db").string();
  const std::string message = Unprivileged([&] { return WriteOne(); });
  EXPECT_THAT(message, HasSubstr("unavailable"));
  EXPECT_THAT(message, HasSubstr("SHARDPROOF_HISTORY"));
  fs::permissions(folder_, fs::perms::owner_all);
}

TEST_F(ErrorsTest, UnreadableFile) {
  Fill();
  fs::permissions(path_, fs::perms::none);
  const std::string message =
      Unprivileged([&] { return CountRecords().status(); });
  EXPECT_THAT(message, HasSubstr("unavailable"));
  EXPECT_THAT(message, HasSubstr("Permission denied"));
}

TEST_F(ErrorsTest, Damaged) {
  Fill();
  const auto size = fs::file_size(path_);
  ASSERT_GT(size, 40u * 4096u);
  {  // A page in the middle, as a failing disk leaves it.
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(size / 4096 / 2 * 4096));
    file << std::string(4096, '\xff');
  }
  auto store = Store::Open(path_);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  ExpectRefused(store->Check(), StatusCode::kDataLoss, "is damaged");
  const auto launches = store->Launches({.last = 0});
  ExpectRefused(launches.status(), StatusCode::kDataLoss, ".recover");
  EXPECT_EQ(fs::file_size(path_), size);
}

// At every length: an error of the right kind, or what is there. Never a crash
// and never a changed file.
TEST_F(ErrorsTest, Truncated) {
  Fill();
  const auto whole = fs::file_size(path_);
  int refused = 0;
  for (uintmax_t size : {whole - 1, whole - 4096, whole / 2, uintmax_t{4096},
                         uintmax_t{100}, uintmax_t{50}, uintmax_t{1}}) {
    fs::resize_file(path_, size);
    const auto records = CountRecords();
    if (!records.ok()) {
      ++refused;
      EXPECT_TRUE(records.status().code() == StatusCode::kDataLoss ||
                  records.status().code() == StatusCode::kInvalidArgument)
          << size << ": " << records.status().ToString();
      EXPECT_THAT(std::string(records.status().message()), HasSubstr(path_));
    }
    EXPECT_EQ(fs::file_size(path_), size);
  }
  EXPECT_GE(refused, 6);
}

TEST_F(ErrorsTest, JsonThatIsNone) {
  Fill();
  {
    auto database = Database::Open(path_, StoreMode::kReadWrite, 100);
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(
        database->Execute("UPDATE records SET record = '{' WHERE id = 5").ok());
  }
  ExpectRefused(CountRecords().status(), StatusCode::kDataLoss, "not JSON");
}

// SQLite lets tests replace its system calls.
int g_writes_left = 0;
ssize_t WriteUntilFull(int descriptor, const void* data, size_t size,
                       off_t offset) {
  if (g_writes_left-- > 0) return pwrite(descriptor, data, size, offset);
  errno = ENOSPC;
  return -1;
}

TEST_F(ErrorsTest, FullDisk) {
  Fill();
  sqlite3_vfs* vfs = sqlite3_vfs_find(nullptr);
  const auto set = [&](const char* name, sqlite3_syscall_ptr call) {
    ASSERT_EQ(vfs->xSetSystemCall(vfs, name, call), SQLITE_OK);
  };
  int failed = 0;
  {
    auto store = Store::Open(path_);
    ASSERT_TRUE(store.ok());
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast)
    const auto full = reinterpret_cast<sqlite3_syscall_ptr>(&WriteUntilFull);
    for (const int writes : {0, 1, 3}) {
      g_writes_left = writes;
      set("pwrite", full);
      set("pwrite64", full);
      const auto imported = store->Import(LaunchAt(1, {Sample("tree", 1)}));
      set("pwrite", nullptr);
      set("pwrite64", nullptr);
      ExpectRefused(imported.status(), StatusCode::kDataLoss,
                    "the disk is full");
      ++failed;
    }
    // With room again it goes on, and the failed ones left nothing.
    EXPECT_EQ(store->Keys("tree")->size(), 0u);
    EXPECT_TRUE(store->Import(LaunchAt(1, {Sample("tree", 1)})).ok());
    EXPECT_TRUE(store->Check().ok());
  }
  EXPECT_EQ(failed, 3);
  EXPECT_EQ(*CountRecords(), 301u);
}

}  // namespace
}  // namespace shardproof
