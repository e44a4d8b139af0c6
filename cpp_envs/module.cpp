// The whole Python binding: one module, dist_trainer._cpp_envs. Used by envs.py; for the loops of kernels.cpp by
// advantage.py and normalize.py; for collectives of the learners of one machine by local_group.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "kernels.h"
#include "load_library.h"
#include "local_group.h"

namespace py = pybind11;
namespace dt = dist_trainer;

namespace {

// A numpy view of a pool's buffer; it keeps the pool alive.
py::array view(const py::object& pool, const char* dtype, std::vector<py::ssize_t> shape, void* data) {
  return py::array(py::dtype(dtype), std::move(shape), data, pool);
}

const char* kind_name(dt::ActionKind kind) {
  switch (kind) {
    case dt::ActionKind::kDiscrete:
      return "discrete";
    case dt::ActionKind::kMultiDiscrete:
      return "multi_discrete";
    case dt::ActionKind::kContinuous:
      return "continuous";
  }
  throw std::logic_error("unknown action kind");
}

py::dict buffers(const py::object& self) {
  auto& pool = self.cast<dt::Pool&>();
  const py::ssize_t rows = pool.rows(), components = pool.spec().action.components();
  const char* observation_type = pool.observations_are_bytes() ? "uint8" : "float32";
  const bool continuous = pool.spec().action.kind == dt::ActionKind::kContinuous;
  std::vector<py::ssize_t> observation_shape{rows};
  for (int extent : pool.spec().observation_shape) observation_shape.push_back(extent);
  py::dict out;
  out["observations"] = view(self, observation_type, observation_shape, pool.observations);
  out["final_observations"] = view(self, observation_type, observation_shape, pool.final_observations);
  out["actions"] = view(self, continuous ? "float32" : "int32", {rows, components}, pool.actions);
  out["noise"] = view(self, "float32", {rows, components}, pool.noise);
  out["rewards"] = view(self, "float32", {rows}, pool.rewards);
  out["terminated"] = view(self, "bool", {rows}, pool.terminated);
  out["truncated"] = view(self, "bool", {rows}, pool.truncated);
  if (pool.features().legal) {
    out["legal"] = view(self, "bool", {rows, static_cast<py::ssize_t>(pool.spec().action.choices())}, pool.legal);
  }
  if (pool.features().resting) out["resting"] = view(self, "bool", {rows}, pool.resting);
  out["silent"] = view(self, "bool", {rows}, pool.silent);
  out["statistics"] =
      view(self, "float64",
           {static_cast<py::ssize_t>(pool.config().num_envs), static_cast<py::ssize_t>(pool.statistics_size())},
           pool.statistics);
  return out;
}

py::array incoming(const py::object& self) {
  auto& pool = self.cast<dt::Pool&>();
  return view(self, "uint8", {static_cast<py::ssize_t>(pool.incoming_bytes())}, pool.incoming);
}

py::array_t<std::uint8_t> snapshot(dt::Pool& pool) {
  py::array_t<std::uint8_t> out(
      {static_cast<py::ssize_t>(pool.config().num_envs), static_cast<py::ssize_t>(pool.snapshot_bytes())});
  pool.snapshot(reinterpret_cast<std::byte*>(out.mutable_data()));
  return out;
}

py::array_t<std::uint8_t> render(const dt::Pool& pool, int env, bool at_end) {
  const auto [width, height] = pool.spec().picture;
  py::array_t<std::uint8_t> out({static_cast<py::ssize_t>(height), static_cast<py::ssize_t>(width), py::ssize_t{3}});
  pool.render(env, at_end, out.mutable_data());
  return out;
}

// (agents, 2) x and y in the picture, negative where an agent is nowhere; None if the environment does not say.
std::optional<py::array_t<float>> places(const dt::Pool& pool, int env) {
  std::vector<dt::Point> points(static_cast<std::size_t>(pool.spec().num_agents));
  if (!pool.places(env, points)) return std::nullopt;
  py::array_t<float> out({static_cast<py::ssize_t>(points.size()), py::ssize_t{2}});
  auto entries = out.mutable_unchecked<2>();
  for (py::ssize_t i = 0; i < entries.shape(0); ++i) {
    entries(i, 0) = points[static_cast<std::size_t>(i)].x;
    entries(i, 1) = points[static_cast<std::size_t>(i)].y;
  }
  return out;
}

void restore(dt::Pool& pool, const py::array_t<std::uint8_t, py::array::c_style>& in) {
  const auto envs = static_cast<py::ssize_t>(pool.config().num_envs);
  const auto bytes = static_cast<py::ssize_t>(pool.snapshot_bytes());
  if (in.ndim() != 2 || in.shape(0) != envs || in.shape(1) != bytes) {
    throw std::invalid_argument("a snapshot of this pool has shape (" + std::to_string(envs) + ", " +
                                std::to_string(bytes) + ")");
  }
  const auto* data = reinterpret_cast<const std::byte*>(in.data());
  const py::gil_scoped_release release;
  pool.restore(data);
}

template <class T>
using Array = py::array_t<T, py::array::c_style>;

// While a process waits for the others; a handler may raise.
void handle_signals() {
  const py::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

template <class T>
void sum_over_processes(dt::LocalGroup& self, Array<T>& terms, double patience_s) {
  T* data = terms.mutable_data();
  const auto count = static_cast<std::size_t>(terms.size());
  const py::gil_scoped_release release;
  self.sum(data, count, dt::LocalGroup::Seconds(patience_s), handle_signals);
}

void gather_from_processes(dt::LocalGroup& self, const Array<std::uint8_t>& own, Array<std::uint8_t>& all,
                           double patience_s) {
  if (all.size() != self.size() * own.size()) throw std::invalid_argument("there must be room for the bytes of all");
  const auto* data = reinterpret_cast<const std::byte*>(own.data());
  auto* out = reinterpret_cast<std::byte*>(all.mutable_data());
  const auto count = static_cast<std::size_t>(own.size());
  const py::gil_scoped_release release;
  self.gather(data, count, out, dt::LocalGroup::Seconds(patience_s), handle_signals);
}

}  // namespace

PYBIND11_MODULE(_cpp_envs, m) {
  m.doc() = "C++ environments and the pool that steps them.";

  py::class_<dt::ActionSpec>(m, "ActionSpec")
      .def_property_readonly("kind", [](const dt::ActionSpec& self) { return kind_name(self.kind); })
      .def_readonly("sizes", &dt::ActionSpec::sizes)
      .def_readonly("low", &dt::ActionSpec::low)
      .def_readonly("high", &dt::ActionSpec::high);

  py::class_<dt::Spec>(m, "Spec")
      .def_readonly("observation_shape", &dt::Spec::observation_shape)
      .def_readonly("action", &dt::Spec::action)
      .def_readonly("num_agents", &dt::Spec::num_agents)
      .def_readonly("teams", &dt::Spec::teams)
      .def_readonly("observation_low", &dt::Spec::observation_low)
      .def_readonly("observation_high", &dt::Spec::observation_high)
      .def_readonly("metrics", &dt::Spec::metrics)
      .def_property_readonly("picture",
                             [](const dt::Spec& self) { return std::pair(self.picture.height, self.picture.width); });

  py::class_<dt::ProcessConfig>(m, "ProcessConfig")
      .def(py::init([](const std::string& program, double step_timeout_s, int max_restarts, std::int64_t memory_bytes) {
             return dt::ProcessConfig{program, step_timeout_s, max_restarts, memory_bytes};
           }),
           py::kw_only(), py::arg("program"), py::arg("step_timeout_s"), py::arg("max_restarts"),
           py::arg("memory_bytes"));

  py::class_<dt::Pool>(m, "Pool")
      .def(py::init([](const std::string& name, const dt::ParamValues& params, int num_envs, int first_env,
                       std::uint64_t seed, int threads, std::vector<int> cores, bool check,
                       std::optional<dt::ProcessConfig> processes, const std::string& library) {
             dt::PoolConfig config{.name = name,
                                   .num_envs = num_envs,
                                   .first_env = first_env,
                                   .seed = seed,
                                   .workers = threads,
                                   .cores = std::move(cores),
                                   .check = check,
                                   .processes = std::move(processes),
                                   .library = library};
             const py::gil_scoped_release release;  // worker processes take a while to start
             return dt::find_env(name).make_pool(std::move(config), params);
           }),
           py::kw_only(), py::arg("name"), py::arg("params"), py::arg("num_envs"), py::arg("first_env"),
           py::arg("seed"), py::arg("threads"), py::arg("cores") = std::vector<int>{}, py::arg("check") = true,
           py::arg("processes") = std::nullopt, py::arg("library") = "")
      .def("buffers", &buffers)
      .def("incoming", &incoming)
      .def("reset", &dt::Pool::reset, py::call_guard<py::gil_scoped_release>())
      .def("send", &dt::Pool::send, py::call_guard<py::gil_scoped_release>())
      .def("recv", &dt::Pool::recv, py::call_guard<py::gil_scoped_release>())
      .def("take_statistics", &dt::Pool::take_statistics)
      .def("take_faults",
           [](dt::Pool& pool) {
             std::vector<std::string> texts;
             for (const dt::EnvFault& fault : pool.take_faults()) {
               texts.push_back(dt::text_of(fault, pool.config().name, pool.config().seed));
             }
             return texts;
           })
      .def("trace", &dt::Pool::trace, py::arg("on"))
      .def("take_spans",
           [](dt::Pool& pool) {
             std::vector<std::tuple<int, std::int64_t, std::int64_t>> spans;
             for (const dt::WorkSpan& span : pool.take_spans()) {
               spans.emplace_back(span.worker, span.begin_ns, span.end_ns);
             }
             return spans;
           })
      .def("snapshot", &snapshot)
      .def("restore", &restore)
      .def("keep_ends", &dt::Pool::keep_ends)
      .def("ends", &dt::Pool::ends, py::arg("env"))
      .def("render", &render, py::arg("env"), py::arg("at_end") = false)
      .def("places", &places, py::arg("env"))
      .def_property_readonly("memory_bytes", &dt::Pool::memory_bytes);

  py::class_<dt::LocalGroup>(m, "LocalGroup")
      .def(py::init<int, int, std::size_t>(), py::arg("rank"), py::arg("size"), py::arg("slot_bytes"))
      .def(py::init<int, int, std::size_t, const std::string&>(), py::arg("rank"), py::arg("size"),
           py::arg("slot_bytes"), py::arg("path"))
      .def_property_readonly("path", &dt::LocalGroup::path)
      .def("watch", &dt::LocalGroup::watch, py::arg("processes"))
      .def(
          "spin_for", [](dt::LocalGroup& self, double seconds) { self.spin_for(dt::LocalGroup::Seconds(seconds)); },
          py::arg("seconds"))
      .def("sum_", &sum_over_processes<float>, py::arg("terms").noconvert(), py::arg("patience_s"))
      .def("sum_", &sum_over_processes<double>, py::arg("terms").noconvert(), py::arg("patience_s"))
      .def("sum_", &sum_over_processes<std::int64_t>, py::arg("terms").noconvert(), py::arg("patience_s"))
      .def("gather", &gather_from_processes, py::arg("own").noconvert(), py::arg("all").noconvert(),
           py::arg("patience_s"));

  m.def("load_library", &dt::load_library, py::arg("path"));
  m.def("abi", &dt::abi_text);
  m.def("env_names", [] {
    std::vector<std::string> names;
    for (const auto& [name, entry] : dt::registry()) names.push_back(name);
    return names;
  });
  m.def(
      "spec", [](const std::string& name, const dt::ParamValues& params) { return dt::find_env(name).spec(params); },
      "Checks the parameters; raises ValueError that names the one at fault.");
  m.def("observations_are_bytes", [](const std::string& name) { return dt::find_env(name).observations_are_bytes; });
  m.def("has_legal", [](const std::string& name) { return dt::find_env(name).features.legal; });
  m.def("has_resting", [](const std::string& name) { return dt::find_env(name).features.resting; });
  m.def("default_params", [](const std::string& name) {
    std::map<std::string, double> values;
    for (const auto& param : dt::find_env(name).params) values[param.name] = param.value;
    return values;
  });
  dt::define_kernels(m);
  m.def("philox4x32", &dt::philox4x32, py::arg("counter"), py::arg("key"));
}
