#include "genie/training/train_state.h"

#include <cmath>
#include <limits>

#include "genie/core/error.h"
#include "genie/core/json.h"

namespace genie::training {
namespace {

using Json = nlohmann::json;

// JSON has no words for numbers that are not finite: they are written as texts.
Json number_to_json(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  return number;
}

double number_from_json(const Json& value, const std::string& where) {
  if (value.is_number()) return value.get<double>();
  if (value == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (value == "inf") return std::numeric_limits<double>::infinity();
  if (value == "-inf") return -std::numeric_limits<double>::infinity();
  throw Error(concat(where, ": expected a number"));
}

// Reads an object's fields and refuses those nobody asked for.
class Fields {
 public:
  Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {}

  const Json& at(const char* key) {
    const auto field = object_.find(key);
    check(field != object_.end(), path_, ": ", key, " is missing");
    ++used_;
    return *field;
  }
  std::string text(const char* key) {
    const Json& value = at(key);
    check(value.is_string(), path_, ": ", key, ": expected a text");
    return value.get<std::string>();
  }
  // A whole number that is not negative, as all of the state's are.
  uint64_t count(const char* key, uint64_t max) {
    const Json& value = at(key);
    check(value.is_number_unsigned() && value.get<uint64_t>() <= max, path_, ": ", key,
          ": expected a whole number of 0 to ", max);
    return value.get<uint64_t>();
  }
  const Json& object(const char* key) {
    const Json& value = at(key);
    check(value.is_object(), path_, ": ", key, ": expected an object");
    return value;
  }
  void done() const { check(used_ == object_.size(), path_, ": has fields this version does not know"); }

 private:
  const Json& object_;
  std::string path_;
  size_t used_ = 0;
};

}  // namespace

std::string to_json(const TrainState& state) {
  Json numbers = Json::object();
  for (const auto& [name, number] : state.numbers) numbers[name] = number_to_json(number);
  const Json json = {{"phase", state.phase},
                     {"step", static_cast<uint64_t>(state.step)},
                     {"seed", state.seed},
                     {"loader_position", static_cast<uint64_t>(state.loader_position)},
                     {"config_hash", state.config_hash},
                     {"numbers", std::move(numbers)},
                     {"texts", state.texts}};
  check(state.step >= 0 && state.loader_position >= 0, "training state: step ", state.step,
        " and loader position ", state.loader_position, " must not be negative");
  try {
    return json.dump(2) + "\n";
  } catch (const Json::exception&) {
    throw Error("training state: a text in it is not UTF-8");
  }
}

TrainState parse_train_state(const std::string& json, const std::string& path) {
  const auto parsed = parse_json(json);
  check(parsed && parsed->is_object(), path, ": not a training state: expected a JSON object");
  Fields fields(*parsed, path);
  TrainState state;
  state.phase = fields.text("phase");
  state.step = static_cast<int64_t>(fields.count("step", INT64_MAX));
  state.seed = fields.count("seed", UINT64_MAX);
  state.loader_position = static_cast<int64_t>(fields.count("loader_position", INT64_MAX));
  state.config_hash = fields.text("config_hash");
  for (const auto& [name, value] : fields.object("numbers").items()) {
    state.numbers[name] = number_from_json(value, concat(path, ": numbers: ", quote(name)));
  }
  for (const auto& [name, value] : fields.object("texts").items()) {
    check(value.is_string(), path, ": texts: ", quote(name), ": expected a text");
    state.texts[name] = value.get<std::string>();
  }
  fields.done();
  return state;
}

}  // namespace genie::training
