# Vector code: at::vec is scalar unless its translation unit is compiled for an instruction set. Every *_vec.cpp is
# therefore compiled once a level, each into a namespace of its own (CPU_CAPABILITY), and registers its kernels with a
# genie::ops::CpuKernel, which picks the highest level this processor has when the program runs.
function(genie_vector_sources target)
  set(levels DEFAULT)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND levels AVX2 AVX512)
  endif()
  set(AVX2_flags -mavx2 -mfma -mf16c -DCPU_CAPABILITY_AVX2)
  # GCC 12's own AVX-512 intrinsics warn about a deliberately uninitialised operand.
  set(AVX512_flags -Wno-uninitialized -Wno-maybe-uninitialized -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c -DCPU_CAPABILITY_AVX512)
  set(number 0)
  # Lowest level first: of an inline function that several objects contain the linker keeps the first copy, which
  # must not need more than the program around it has.
  foreach(level IN LISTS levels)
    add_library(${target}_${level} OBJECT ${ARGN})
    target_compile_definitions(${target}_${level} PRIVATE CPU_CAPABILITY=${level} GENIE_CPU_LEVEL=${number})
    target_compile_options(${target}_${level} PRIVATE -O3 -Wno-psabi ${${level}_flags})
    target_link_libraries(${target}_${level} PRIVATE genie_options genie_torch)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_${level}>)
    math(EXPR number "${number} + 1")
  endforeach()
endfunction()
