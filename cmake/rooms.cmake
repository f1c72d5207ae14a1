include(${CMAKE_CURRENT_LIST_DIR}/vector.cmake)

# genie_room(NAME): add the sources of csrc/genie/NAME (and of its sub-folders) to the core library; *_vec.cpp are
# compiled once an instruction set.
function(genie_room name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/genie/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "_cuda\\.cpp$|/ops/cuda/")  # those are genie_cuda's
  set(vector_sources ${sources})
  list(FILTER sources EXCLUDE REGEX "_vec\\.cpp$")
  list(FILTER vector_sources INCLUDE REGEX "_vec\\.cpp$")
  target_sources(genie PRIVATE ${sources})
  if(vector_sources)
    genie_vector_sources(genie ${vector_sources})
  endif()
endfunction()

add_library(genie_options INTERFACE)
target_include_directories(genie_options INTERFACE ${CMAKE_SOURCE_DIR}/csrc)
target_compile_options(genie_options INTERFACE -Wall -Wextra)
if(GENIE_WERROR)
  target_compile_options(genie_options INTERFACE -Werror)
endif()
if(GENIE_SANITIZE)
  target_compile_options(genie_options INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all
    -fno-omit-frame-pointer)
  target_link_options(genie_options INTERFACE -fsanitize=address,undefined)
endif()
