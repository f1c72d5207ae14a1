# CUDA kernels. They are built where torch is a CUDA build and nvcc is there: what torch was built with decides, never
# a GPU in this machine. GENIE_CUDA=ON insists on them, OFF leaves them out.
set(GENIE_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO, ON or OFF")
set_property(CACHE GENIE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(GENIE_WITH_CUDA OFF)
if(NOT GENIE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "GENIE_CUDA must be AUTO, ON or OFF, not '${GENIE_CUDA}'")
elseif(GENIE_CUDA STREQUAL "OFF")
  message(STATUS "CUDA kernels: left out (GENIE_CUDA=OFF)")
elseif(NOT GENIE_TORCH_CUDA)
  set(GENIE_CUDA_LACK "torch ${GENIE_TORCH_VERSION} is a CPU build")
else()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(GENIE_CUDA_LACK "there is no nvcc (torch ${GENIE_TORCH_VERSION} needs that of CUDA ${GENIE_TORCH_CUDA})")
  else()
    set(GENIE_WITH_CUDA ON)
  endif()
endif()
if(GENIE_CUDA_LACK AND GENIE_CUDA STREQUAL "ON")
  message(FATAL_ERROR "GENIE_CUDA=ON, but ${GENIE_CUDA_LACK}")
elseif(GENIE_CUDA_LACK)
  message(STATUS "CUDA kernels: left out, ${GENIE_CUDA_LACK}")
endif()

if(GENIE_WITH_CUDA)
  # The architectures are in nvcc_flags.txt, which scripts/check_cuda.sh reads as well.
  file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/nvcc_flags.txt GENIE_NVCC_FLAGS REGEX "^-")
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # as torch: two runtimes would keep two current devices
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  set(CMAKE_CUDA_FLAGS_RELEASE "")
  enable_language(CUDA)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "")  # the flags name it; CMake 3.25 knows no C++20 of this nvcc
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "")
  find_package(CUDAToolkit REQUIRED)
  if(NOT "${CUDAToolkit_VERSION_MAJOR}.${CUDAToolkit_VERSION_MINOR}" STREQUAL GENIE_TORCH_CUDA)
    message(WARNING "torch ${GENIE_TORCH_VERSION} was built with CUDA ${GENIE_TORCH_CUDA}, the CUDA kernels with "
      "${CUDAToolkit_VERSION}")
  endif()
  # Among torch's libraries, which follow libstdc++ (torch.cmake).
  target_link_libraries(genie_torch INTERFACE ${GENIE_TORCH_LIB}/libtorch_cuda.so ${GENIE_TORCH_LIB}/libc10_cuda.so
    CUDA::cudart)
  # The CUDA runtime has to be the one torch loads: that of its wheels, else the toolkit's.
  set(GENIE_CUDA_RPATH "$ORIGIN/../nvidia/cu${CUDAToolkit_VERSION_MAJOR}/lib"
    "${GENIE_TORCH_DIR}/../nvidia/cu${CUDAToolkit_VERSION_MAJOR}/lib" "${CUDAToolkit_LIBRARY_DIR}")
  message(STATUS "CUDA kernels: by nvcc ${CUDAToolkit_VERSION}; off until enabled, they were never run on a GPU")
endif()

# genie_cuda(TARGET): add the CUDA sources to the core library: *.cu and *_cuda.cpp of all rooms, and ops/cuda.
function(genie_cuda target)
  if(NOT GENIE_WITH_CUDA)
    return()
  endif()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/genie/*_cuda.cpp
    ${CMAKE_SOURCE_DIR}/csrc/genie/ops/cuda/*.cpp)
  file(GLOB_RECURSE kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/genie/ops/*.cu)
  add_library(${target}_cuda OBJECT ${kernels})
  target_link_libraries(${target}_cuda PRIVATE genie_torch)
  target_include_directories(${target}_cuda PRIVATE ${CMAKE_SOURCE_DIR}/csrc)
  target_compile_options(${target}_cuda PRIVATE ${GENIE_NVCC_FLAGS})
  target_sources(${target} PRIVATE ${sources} $<TARGET_OBJECTS:${target}_cuda>)
endfunction()
