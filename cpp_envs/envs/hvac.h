// Heating and cooling of an office for a day, in steps of a quarter of an hour: an RC model with two masses, air and
// walls. The wall's temperature is hidden, and so are the heat gains of people and machines; the thermometer is noisy;
// heat arrives some steps after it was ordered (it flows through pipes); weather disturbs. Linear dynamics, Gaussian
// noise and a quadratic cost of discomfort and energy make the LQG regulator (Riccati equations for a Kalman filter and
// for the gains, benchmarks/reference/hvac.py) optimal but for the bounds of the power, which it hardly ever meets.
// Structure and magnitudes: Madsen and Holst, "Estimation of continuous-time models for the heat dynamics of a
// building" (Energy and Buildings 22, 1995). The return is -cost.
// Solved: mean cost <= 1.05 of the LQG regulator's, which is 41.4. A regulator without memory costs 1.1 of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "../registry.h"

namespace dist_trainer {

struct Hvac {
  using Observation = float;
  using Action = float;

  static constexpr int kStepsPerHour = 4, kStepsPerDay = 24 * kStepsPerHour, kMaxDelay = 16;
  struct Params {
    int days = 1;
    int delay = 2;
    float sensor_noise = 0.5F;
    float energy_weight = 0.03F;
    void visit(auto&& field) {
      field("days", days, 1, 100, "length of an episode");
      field("delay", delay, 1, kMaxDelay, "steps until ordered heat arrives");
      field("sensor_noise", sensor_noise, 0.0F, 3.0F, "standard deviation of the thermometer, in K");
      field("energy_weight", energy_weight, 0.001F, 1.0F, "cost of a step with 1 kW; of one with 1 K of discomfort: 1");
    }
  };

  static constexpr float kLowest = -6, kHighest = 10;          // kW; below 0: cooling
  static constexpr float kHours = 1.0F / kStepsPerHour;        // of a step
  static constexpr float kAirMass = 2, kWallMass = 12;         // kWh / K
  static constexpr float kAirToWall = 1, kToOutside = 0.1F;    // kW / K; the latter both from air and wall
  static constexpr float kSetpoint = 21;                       // degrees Celsius, as all temperatures
  static constexpr float kSeason = 6, kDailySwing = 5;         // outside: the mean, and the amplitude over a day
  static constexpr float kWeather = 4, kWeatherDecay = 0.98F;  // deviation from that: AR(1), deviation and factor
  static constexpr float kGain = 1.5F, kGainDecay = 0.88F;     // hidden heat gains in kW: likewise
  static constexpr float kOccupants = 2;                       // kW, known, while the office is occupied
  static constexpr float kDraught = 0.2F;                      // deviation of the air's noise, in K
  static constexpr float kFirstSpread = 2;                     // deviation of the first temperatures from 20 degrees
  static constexpr float kUnoccupied = 0.1F;                   // weight of discomfort while nobody is there
  static constexpr float kThermometer = 8;                     // K around the setpoint that it can show

  float air, wall, gain, weather;  // of these only the weather is seen, and the air through the thermometer
  float measured;
  float pipe[kMaxDelay];  // ordered in step k: at k modulo the delay
  float last_order;
  int step_count;
  float discomfort, energy;  // so far

  static Spec spec(const Params&) {
    return {.observation_shape = {9},
            .action = ActionSpec::continuous({kLowest}, {kHighest}),
            .num_agents = 1,
            .metrics = {"discomfort", "energy"},  // K, mean while occupied; kWh of a day
            .observation_low = -4,
            .observation_high = 4,
            .picture = {320, 240}};
  }

  void reset(const Params& params, Rng& rng) {
    air = kSetpoint - 1 + kFirstSpread * rng.normal();
    wall = kSetpoint - 1 + kFirstSpread * rng.normal();
    gain = kGain * rng.normal();
    weather = kWeather * rng.normal();
    std::ranges::fill(pipe, 0.0F);
    last_order = discomfort = energy = 0;
    step_count = 0;
    measure(params, rng);
  }

  // The action: heat to order, in kW.
  StepResult step(const Params& params, std::span<const float> action, Rng& rng) {
    static const float weather_noise = kWeather * std::sqrt(1 - kWeatherDecay * kWeatherDecay);
    static const float gain_noise = kGain * std::sqrt(1 - kGainDecay * kGainDecay);
    float& slot = pipe[step_count % params.delay];
    const float outside = outside_temperature(), to_wall = kAirToWall * (air - wall);
    const float known_gain = occupied(step_count) ? kOccupants : 0;
    const float into_air = slot + known_gain + gain - to_wall - kToOutside * (air - outside);
    const float into_wall = to_wall - kToOutside * (wall - outside);
    air += kHours / kAirMass * into_air + kDraught * rng.normal();
    wall += kHours / kWallMass * into_wall;
    gain = kGainDecay * gain + gain_noise * rng.normal();
    weather = kWeatherDecay * weather + weather_noise * rng.normal();
    slot = last_order = action[0];
    ++step_count;
    measure(params, rng);

    const float error = air - kSetpoint;
    const bool present = occupied(step_count);
    discomfort += present ? std::abs(error) : 0;
    energy += kHours * std::abs(last_order);
    const float cost = (present ? 1 : kUnoccupied) * error * error + params.energy_weight * last_order * last_order;
    return {.reward = -cost, .terminated = step_count == params.days * kStepsPerDay};
  }

  // {thermometer, outside, last order, time of day (2), occupied now, in 1, 2 and 3 hours}, about 1 in size
  void observe(const Params&, std::span<float> out) const {
    const float time = 2 * std::numbers::pi_v<float> * static_cast<float>(step_count % kStepsPerDay) / kStepsPerDay;
    out[0] = (measured - kSetpoint) / 2;
    out[1] = std::clamp(outside_temperature() / 20, -4.0F, 4.0F);
    out[2] = last_order / 5;
    out[3] = std::sin(time);
    out[4] = std::cos(time);
    for (int hours = 0; hours < 4; ++hours) {
      out[static_cast<std::size_t>(5 + hours)] = static_cast<float>(occupied(step_count + hours * kStepsPerHour));
    }
  }

  void metrics(const Params& params, std::span<float> out) const {
    out[0] = discomfort / static_cast<float>(params.days * kOfficeHours * kStepsPerHour);
    out[1] = energy / static_cast<float>(params.days);
  }

  // The office from outside: colours are temperatures, blue, green and red; what is on its way in the pipe.
  void render(const Params& params, Canvas& canvas) const {
    const int minutes = step_count % kStepsPerDay * 60 / kStepsPerHour;
    draw_header(canvas, Label("AIR ", Decimal{static_cast<double>(air)}, " WALL ", Decimal{static_cast<double>(wall)}),
                Label(minutes / 600, minutes / 60 % 10, ":", minutes % 60 / 10, minutes % 10));
    const auto colour = [](float temperature) {
      const float off = (temperature - kSetpoint) / 4;
      return mix(palette::kGoal, off < 0 ? palette::kSeries[6] : palette::kDanger, std::abs(off));
    };
    const float outside = outside_temperature(), ground = 206;
    canvas.rect({0, kHeaderHeight, 320, ground - kHeaderHeight},
                mix(palette::kSeries[6], palette::kOrange, outside / 30).faded(70));
    canvas.rect({0, ground, 320, 240 - ground}, palette::kPanel);
    canvas.text({8, 34}, Label("OUTSIDE ", Decimal{static_cast<double>(outside)}), palette::kText);
    canvas.text({8, 54}, Label("GAINS ", Decimal{static_cast<double>(gain)}, " KW"), palette::kFaint, Align::kLeft, 1);

    const Box house{96, 92, 168, ground - 92};
    canvas.polygon({{80, 94}, {180, 52}, {280, 94}}, palette::kWall);
    canvas.rect(house, colour(wall));
    canvas.rect(house.inset(12), palette::kBackground);
    canvas.rect(house.inset(12), colour(air).faded(150));
    canvas.text({180, 112}, Label(Decimal{static_cast<double>(measured)}), palette::kText, Align::kCenter, 3);
    for (int person = 0; occupied(step_count) && person < 3; ++person) {
      const float x = 140 + 40 * static_cast<float>(person);
      canvas.disc({x, 156}, 7, palette::kGold);
      canvas.rect({x - 9, 165, 18, 29}, palette::kGold, 8);
    }
    canvas.line({16, 220}, {180, 220}, 12, palette::kGrid);
    canvas.line({180, 220}, {180, 198}, 12, palette::kGrid);
    for (int i = 0; i < params.delay; ++i) {  // the next to arrive is the nearest
      const float power = pipe[(step_count + i) % params.delay], size = std::sqrt(std::abs(power) / kHighest);
      const float x = 180 - 164 * (static_cast<float>(i) + 0.5F) / static_cast<float>(params.delay);
      canvas.disc({x, 220}, 2 + 9 * size, power < 0 ? palette::kAgent : palette::kDanger);
    }
    canvas.text({312, 214}, Label(Decimal{static_cast<double>(last_order)}, " KW"), palette::kText, Align::kRight);
  }

 private:
  static constexpr int kOpens = 8, kCloses = 18, kOfficeHours = kCloses - kOpens;  // o'clock

  static bool occupied(int step) {
    const int hour = step % kStepsPerDay / kStepsPerHour;
    return hour >= kOpens && hour < kCloses;
  }

  // Coldest at 3 o'clock.
  float outside_temperature() const {
    const float hour = static_cast<float>(step_count % kStepsPerDay) * kHours;
    return kSeason + kDailySwing * std::sin(2 * std::numbers::pi_v<float> * (hour - 9) / 24) + weather;
  }

  void measure(const Params& params, Rng& rng) {
    const float shown = air + params.sensor_noise * rng.normal();
    measured = std::clamp(shown, kSetpoint - kThermometer, kSetpoint + kThermometer);
  }
};

REGISTER_ENV(Hvac, "hvac");

}  // namespace dist_trainer
