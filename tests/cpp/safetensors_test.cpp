#include "genie/training/safetensors.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "checkpoint_samples.h"
#include "temporary_directory.h"

namespace genie::training {
namespace {

using ::genie::testing::error_of;
using ::genie::testing::read_bytes;
using ::genie::testing::same;
using ::genie::testing::TemporaryDirectory;
using ::genie::testing::write_bytes;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string file_of(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &size, 8);
  return bytes + header + data;
}

TEST(Safetensors, EveryDtypeShapeAndNameComesBack) {
  const TemporaryDirectory directory;
  TensorMap tensors;
  for (const auto type : {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf,
                          at::kBFloat16, at::kFloat, at::kDouble}) {
    tensors[std::string("t.") + c10::toString(type)] = (at::arange(7) % 2).to(type);
  }
  tensors["scalar"] = at::full({}, -1.5, at::kDouble);
  tensors["empty"] = at::empty({3, 0, 2}, at::kHalf);
  tensors["transposed"] = at::arange(12, at::kFloat).view({3, 4}).t();
  tensors["\"\\\n\t\xc3\xa4 \xe2\x82\xac"] = at::ones({1, 1, 5}, at::kInt);
  const Metadata metadata = {{"format", "pt"}, {"note", "a \"b\"\n"}};
  const FileSum written = save_safetensors(directory / "a.safetensors", tensors, metadata);
  Metadata metadata_read;
  FileSum read;
  EXPECT_TRUE(same(load_safetensors(directory / "a.safetensors", &metadata_read, &read), tensors));
  EXPECT_EQ(metadata_read, metadata);
  EXPECT_EQ(read, written);
  EXPECT_EQ(sum_file(directory / "a.safetensors"), written);
}

TEST(Safetensors, NonFiniteNumbersKeepTheirBits) {
  const TemporaryDirectory directory;
  const double quiet = std::numeric_limits<double>::quiet_NaN();
  const TensorMap tensors = {{"x", at::tensor({quiet, HUGE_VAL, -HUGE_VAL, -0.0, 5e-324}, at::kDouble)}};
  save_safetensors(directory / "a", tensors);
  const TensorMap read = load_safetensors(directory / "a");
  EXPECT_TRUE(at::equal(read.at("x").view(at::kLong), tensors.at("x").view(at::kLong)));
}

TEST(Safetensors, DataStartsAtAMultipleOfEightAndLargeElementsComeFirst) {
  const TemporaryDirectory directory;
  save_safetensors(directory / "a", {{"a", at::ones({3}, at::kByte)}, {"b", at::ones({2}, at::kDouble)}});
  const std::string bytes = read_bytes(directory / "a");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  EXPECT_EQ(header % 8, 0u);
  const SafetensorsHeader parsed = read_safetensors_header(directory / "a");
  EXPECT_EQ(parsed.tensors.at("b").begin, 0u);
  EXPECT_EQ(parsed.tensors.at("a").begin, 16u);
  EXPECT_EQ(parsed.tensors.at("a").dtype, "U8");
}

TEST(Safetensors, AFileWithoutTensorsIsValid) {
  const TemporaryDirectory directory;
  save_safetensors(directory / "a", {});
  EXPECT_TRUE(load_safetensors(directory / "a").empty());
}

TEST(Safetensors, WhatCannotBeWrittenIsRefused) {
  const TemporaryDirectory directory;
  const auto refused = [&](const TensorMap& tensors) {
    return error_of([&] { save_safetensors(directory / "a", tensors); });
  };
  EXPECT_THAT(refused({{"__metadata__", at::ones(1)}}), HasSubstr("__metadata__"));
  EXPECT_THAT(refused({{"x", at::Tensor()}}), HasSubstr("undefined"));
  EXPECT_THAT(refused({{"x", at::ones(2, at::kComplexFloat)}}), HasSubstr("ComplexFloat"));
  EXPECT_THAT(refused({{"\xff", at::ones(1)}}), HasSubstr("UTF-8"));
  EXPECT_THAT(error_of([&] { save_safetensors(directory / "none/a", {}); }), HasSubstr("none/a"));
}

TEST(Safetensors, EveryKindOfLieIsNamed) {
  const TemporaryDirectory directory;
  const std::string path = directory / "lie.safetensors";
  const auto message = [&](const std::string& bytes) {
    write_bytes(path, bytes);
    const std::string text = error_of([&] { load_safetensors(path); });
    EXPECT_THAT(text, StartsWith(path));
    return text;
  };
  const auto header_message = [&](const std::string& header, size_t data = 4) {
    return message(file_of(header, std::string(data, '\1')));
  };
  const auto tensor_message = [&](const std::string& fields, size_t data = 4) {
    return header_message("{\"x\":{" + fields + "}}", data);
  };
  EXPECT_THAT(message(""), HasSubstr("0 bytes"));
  EXPECT_THAT(message("1234567"), HasSubstr("7 bytes"));
  EXPECT_THAT(message("PK\3\4 a zip file"), HasSubstr("its header should take"));
  EXPECT_THAT(message(std::string(8, '\xff') + "{}"), HasSubstr("its header should take"));
  EXPECT_THAT(message(file_of(std::string(kMaxSafetensorsHeader + 1, ' '), "")), HasSubstr("are accepted"));
  EXPECT_THAT(header_message("{"), HasSubstr("JSON"));
  EXPECT_THAT(header_message("{} x"), HasSubstr("JSON"));
  EXPECT_THAT(header_message("{\"\xff\":1}"), HasSubstr("JSON"));
  EXPECT_THAT(header_message("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(header_message("7"), HasSubstr("not a JSON object"));
  EXPECT_THAT(header_message(std::string(1 << 20, '[')), HasSubstr("not a JSON object"));
  EXPECT_THAT(header_message("{\"x\":" + std::string(1 << 20, '[')), HasSubstr("list"));
  EXPECT_THAT(header_message(std::string("{\"x\0\":1}", 9)), HasSubstr("control characters"));
  EXPECT_THAT(header_message("{}"), HasSubstr("4 bytes after the last tensor"));
  EXPECT_THAT(header_message("{\"x\":null}"), HasSubstr("null"));
  EXPECT_THAT(header_message("{\"__metadata__\":{\"a\":1}}"), HasSubstr("__metadata__"));
  const std::string offsets = "\"data_offsets\":[0,4]";
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[1]"), HasSubstr("needs"));
  EXPECT_THAT(tensor_message("\"dtype\":\"F7\",\"shape\":[1]," + offsets), HasSubstr("unknown dtype \"F7\""));
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[-1]," + offsets), HasSubstr("negative"));
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[1.0]," + offsets), HasSubstr("whole number"));
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[9223372036854775808]," + offsets),
              HasSubstr("2^63"));
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296]," + offsets),
              HasSubstr("overflows"));
  EXPECT_THAT(
      tensor_message("\"dtype\":\"F32\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]", 0),
      HasSubstr("overflows"));
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[2]," + offsets), HasSubstr("take 8 bytes"));
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]"),
              HasSubstr("number"));
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]"), HasSubstr("two"));
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[1]," + offsets, 3), HasSubstr("truncated"));
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[1]," + offsets, 5), HasSubstr("1 bytes after"));
  EXPECT_THAT(tensor_message("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]"), HasSubstr("lies"));
  EXPECT_THAT(tensor_message("\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4]," + offsets),
              HasSubstr("text"));
  const std::string four = "{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[";
  EXPECT_THAT(header_message("{\"x\":" + four + "0,4]},\"x\":" + four + "0,4]}}"), HasSubstr("twice"));
  EXPECT_THAT(header_message("{\"x\":" + four + "0,4]},\"y\":" + four + "2,6]}}", 6), HasSubstr("overlaps"));
  EXPECT_THAT(header_message("{\"x\":" + four + "0,4]},\"y\":" + four + "6,10]}}", 10), HasSubstr("unused"));
  EXPECT_THAT(message(file_of("{\"x\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1]}}", "\2")),
              HasSubstr("BOOL"));
}

TEST(Safetensors, WhatIsNoRegularFileIsRefusedWithoutWaiting) {
  const TemporaryDirectory directory;
  EXPECT_THAT(error_of([&] { load_safetensors(directory.path()); }), HasSubstr("not a regular file"));
  EXPECT_THAT(error_of([&] { load_safetensors("/dev/zero"); }), HasSubstr("not a regular file"));
  EXPECT_THAT(error_of([&] { load_safetensors(directory / "none"); }), HasSubstr("cannot be opened"));
}

}  // namespace
}  // namespace genie::training
