#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "genie/config/config.h"
#include "genie/config/entry.h"

namespace genie::config {
namespace {

namespace fs = std::filesystem;

const fs::path source_dir = GENIE_SOURCE_DIR;

std::string read_file(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<fs::path> config_files() {
  std::vector<fs::path> files;
  for (const auto& file : fs::directory_iterator(source_dir / "configs")) {
    if (file.path().extension() == ".yaml") files.push_back(file.path());
  }
  return files;
}

TEST(ConfigFiles, EachLoadsIsValidAndNamesOnlyKnownKeys) {
  EXPECT_GE(config_files().size(), 4u);
  for (const fs::path& file : config_files()) EXPECT_NO_THROW(load_config(file.string())) << file;
}

TEST(ConfigFiles, EachSaysHowToRunIt) {
  for (const fs::path& file : config_files()) {
    const std::string run = "#   genie-train --config configs/" + file.filename().string() +
                            " --data F.h5 --out runs/" + file.stem().string();
    // Phase jepa stands apart from those that "all" means.
    EXPECT_THAT(read_file(file), ::testing::AnyOf(::testing::HasSubstr(run + "\n"),
                                                  ::testing::HasSubstr(run + " --phase jepa\n")))
        << file;
  }
}

TEST(ConfigFiles, EachValueHasAComment) {
  for (const fs::path& file : config_files()) {
    std::istringstream lines(read_file(file));
    for (std::string line; std::getline(lines, line);) {
      const size_t colon = line.find(": ");
      if (line.find_first_not_of(' ') == std::string::npos || line[line.find_first_not_of(' ')] == '#')
        continue;
      EXPECT_TRUE(colon == std::string::npos || line.find("  # ") != std::string::npos)
          << file << ": " << line;
    }
  }
}

TEST(ConfigFiles, Genie16gbIsTheModelItIsNamedFor) {
  const Config c = load_config((source_dir / "configs/genie_16gb.yaml").string());
  EXPECT_EQ(c.data.width, 128);
  EXPECT_EQ(c.data.height, 72);
  EXPECT_EQ(c.dynamics.transformer.head_dim, 128);
  EXPECT_EQ(c.latent_action.quantizer.num_codes, 8);
  EXPECT_EQ(c.training.dtype, "bfloat16");
}

// GENIE_UPDATE_DOCS=1 rewrites the tables after a change of the structs.
TEST(ConfigDocs, ConfigurationPageShowsEveryKeyAsItIs) {
  const fs::path path = source_dir / "docs/configuration.md";
  std::string page = read_file(path);
  const size_t marker = page.find("<!-- From here on written by:");
  ASSERT_NE(marker, std::string::npos) << path << " has lost the line that the tables follow";
  const size_t tables = page.find("\n\n", marker) + 2;
  if (std::getenv("GENIE_UPDATE_DOCS") != nullptr) {
    page = page.substr(0, tables) + describe();
    std::ofstream(path) << page;
  }
  EXPECT_TRUE(page.substr(tables) == describe())
      << path << " is out of date; run GENIE_UPDATE_DOCS=1 genie_tests --gtest_filter=ConfigDocs.*";
}

TEST(ConfigDocs, EveryKeyIsDescribedWithItsDefaultAndWhatIsAllowed) {
  const std::string tables = describe();
  Config defaults;
  for (const Entry& entry : list_entries(defaults)) {
    EXPECT_FALSE(entry.doc.empty()) << entry.key;
    const std::string row = "| `" + entry.key + "` | `" + value_text(entry) + "` | " + allowed(entry) + " | ";
    EXPECT_THAT(tables, ::testing::HasSubstr(entry.is_section() ? "## " + entry.key + "\n" : row));
  }
}

}  // namespace
}  // namespace genie::config
