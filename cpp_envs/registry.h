// The environments by name. A header in envs/ registers itself; nothing else has to be edited.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "env_pool.h"

namespace dist_trainer {

struct ParamInfo {
  std::string name;
  double value, low, high;  // the default and the valid range
  bool integer;
  std::string meaning;
};

struct EnvEntry {
  bool observations_are_bytes;  // uint8, else float32
  Features features;
  std::vector<ParamInfo> params;
  std::function<Spec(const ParamValues&)> spec;
  std::function<std::unique_ptr<Pool>(PoolConfig, const ParamValues&)> make_pool;
};

inline std::map<std::string, EnvEntry>& registry() {
  static std::map<std::string, EnvEntry> entries;
  return entries;
}

inline std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

inline const EnvEntry& find_env(const std::string& name) {
  const auto found = registry().find(name);
  if (found != registry().end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, entry] : registry()) names.push_back(known);
  throw std::invalid_argument("env.name=" + name + ": no such environment; valid: " + join(names));
}

template <class Params>
std::vector<ParamInfo> describe_params() {
  std::vector<ParamInfo> infos;
  Params{}.visit([&infos]<class T>(const char* name, T& value, T low, T high, const char* meaning) {
    infos.push_back({name, static_cast<double>(value), static_cast<double>(low), static_cast<double>(high),
                     std::is_integral_v<T>, meaning});
  });
  return infos;
}

// Throws std::invalid_argument that names the parameter, the value and what would be valid.
template <class Params>
Params parse_params(const ParamValues& values) {
  Params params;
  ParamValues rest = values;
  std::vector<std::string> names;
  params.visit([&]<class T>(const char* name, T& value, T low, T high, const char*) {
    names.emplace_back(name);
    const auto given = rest.extract(name);
    if (given.empty()) return;
    const double wanted = given.mapped();
    const bool fits = !std::is_integral_v<T> || wanted == std::floor(wanted);
    if (!fits || !(wanted >= static_cast<double>(low) && wanted <= static_cast<double>(high))) {
      throw std::invalid_argument("env.params." + names.back() + "=" + number(wanted) + ": must be " +
                                  (std::is_integral_v<T> ? "a whole number" : "a number") + " from " +
                                  number(static_cast<double>(low)) + " to " + number(static_cast<double>(high)));
    }
    value = static_cast<T>(wanted);
  });
  if (!rest.empty()) {
    const auto& [name, value] = *rest.begin();
    throw std::invalid_argument("env.params." + name + "=" + number(value) +
                                ": no such parameter; valid: " + join(names));
  }
  return params;
}

template <Environment E>
bool register_env(const std::string& name) {
  using Params = typename E::Params;
  registry()[name] = {
      std::is_same_v<typename E::Observation, std::uint8_t>,
      {HasLegal<E>, HasResting<E>},
      describe_params<Params>(),
      [](const ParamValues& values) { return E::spec(parse_params<Params>(values)); },
      [](PoolConfig config, const ParamValues& values) -> std::unique_ptr<Pool> {
        config.params = values;
        return std::make_unique<EnvPool<E>>(std::move(config), parse_params<Params>(values));
      },
  };
  return true;
}

#define DIST_TRAINER_JOIN2(a, b) a##b
#define DIST_TRAINER_JOIN(a, b) DIST_TRAINER_JOIN2(a, b)
#define REGISTER_ENV(Type, name) \
  static const bool DIST_TRAINER_JOIN(kRegistered, __COUNTER__) = ::dist_trainer::register_env<Type>(name)

}  // namespace dist_trainer
