# The Lua library in lua/ephor as a table of byte arrays in C, so that the binary needs no file beside it.
# Included, it adds the generated source to ep_filters; run by `cmake -P`, it writes that source.
if(CMAKE_SCRIPT_MODE_FILE)
    set(arrays "")
    set(rows "")
    set(i 0)
    file(GLOB files ${LUA_DIR}/*.lua)
    list(FILTER files EXCLUDE REGEX "_test\\.lua$")
    list(SORT files)
    foreach(file ${files})
        get_filename_component(name ${file} NAME_WE)
        file(READ ${file} hex HEX)
        string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
        string(REGEX REPLACE "((0x[0-9a-f][0-9a-f],){20})" "\\1\n" bytes "${bytes}")
        string(APPEND arrays "static const unsigned char text_${i}[] = {\n${bytes}0x00};\n")
        string(APPEND rows "    {\"ephor.${name}\", text_${i}, sizeof text_${i} - 1},\n")
        math(EXPR i "${i} + 1")
    endforeach()
    file(WRITE ${OUTPUT}.new "/* Made by cmake/embed.cmake. */\n#include \"lua/embedded.h\"\n\n${arrays}\n"
        "const struct ep_lua_embedded ep_lua_embedded[] = {\n${rows}    {NULL, NULL, 0},\n};\n")
    file(RENAME ${OUTPUT}.new ${OUTPUT})
elseif(TARGET ep_filters)
    file(GLOB LUA_LIBRARY CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/lua/ephor/*.lua)
    set(LUA_EMBEDDED ${CMAKE_BINARY_DIR}/generated/lua_embedded.c)
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/generated)
    add_custom_command(OUTPUT ${LUA_EMBEDDED}
        COMMAND ${CMAKE_COMMAND} -DLUA_DIR=${CMAKE_SOURCE_DIR}/lua/ephor -DOUTPUT=${LUA_EMBEDDED}
                -P ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
        DEPENDS ${LUA_LIBRARY} ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
        COMMENT "Embedding lua/ephor" VERBATIM)
    target_sources(ep_filters PRIVATE ${LUA_EMBEDDED})
endif()
