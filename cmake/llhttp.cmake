# llhttp: the C sources of Debian's node-llhttp, compiled in.
set(LLHTTP_DIR /usr/share/llhttp)
if(NOT EXISTS ${LLHTTP_DIR}/llhttp.c)
    message(FATAL_ERROR "llhttp not found: run ./dev setup (node-llhttp)")
endif()
add_library(ep_llhttp STATIC ${LLHTTP_DIR}/llhttp.c ${LLHTTP_DIR}/api.c ${LLHTTP_DIR}/http.c)
target_include_directories(ep_llhttp SYSTEM PUBLIC /usr/share/include/llhttp)
target_compile_options(ep_llhttp PRIVATE -w)
