// Address spaces mean nothing to the host's compiler: the lint checks them, check mode watches the memory behind them.
#pragma once
#define device
#define constant
#define threadgroup
#define thread

namespace host {
// T from `void(T)`: the type comes in parentheses, since it may hold commas.
template <class F>
struct Argument;
template <class T>
struct Argument<void(T)> {
  using type = T;
};
}  // namespace host

// `threadgroup T name[n];` is rewritten to HOST_THREADGROUP(1, (T), name, [n]), since the empty word above would give
// every thread its own array.
#define HOST_THREADGROUP(id, T, name, ...)                                                        \
  using host_type_##id = typename host::Argument<void T>::type __VA_ARGS__;                              \
  host_type_##id& name = *(host_type_##id*)host::threadgroup_array(                               \
      id, #name, sizeof(host_type_##id), alignof(host_type_##id), host::Place{__FILE__, __LINE__})
