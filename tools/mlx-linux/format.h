// std::format for a libstdc++ older than GCC 13's, as far as mlx-c goes: "{}", in order.
#pragma once
#ifdef __cplusplus
#if __has_include(<format>)
#include <format>
#else
#include <sstream>
#include <string>
namespace std {
inline void format_rest(ostringstream& out, const string& text, size_t at) { out << text.substr(at); }
template <typename First, typename... Rest>
void format_rest(ostringstream& out, const string& text, size_t at, const First& first, const Rest&... rest) {
  const size_t place = text.find("{}", at);
  if (place == string::npos) {
    return format_rest(out, text, at);
  }
  out << text.substr(at, place - at) << first;
  format_rest(out, text, place + 2, rest...);
}
template <typename... Args>
string format(const string& text, const Args&... args) {
  ostringstream out;
  format_rest(out, text, 0, args...);
  return out.str();
}
} // namespace std
#endif
#endif
