# Imported targets for the torch of the active Python. find_package(Torch) is a fatal error on a CUDA wheel without
# cuBLAS headers, so the wheel is asked where its files are instead.
find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
execute_process(
  COMMAND ${Python_EXECUTABLE} -I -c
    "import os,torch; print(os.path.dirname(torch.__file__), torch.__version__, torch.version.cuda or '', int(torch.compiled_with_cxx11_abi()), sep=';')"
  OUTPUT_VARIABLE GENIE_TORCH_PROBE OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE GENIE_TORCH_FAILED ERROR_QUIET)
if(GENIE_TORCH_FAILED)
  message(FATAL_ERROR "genie_cpp compiles against the torch of ${Python_EXECUTABLE}, and there is none. "
    "Install it first, for example: pip install torch==2.13.0")
endif()
list(GET GENIE_TORCH_PROBE 0 GENIE_TORCH_DIR)
list(GET GENIE_TORCH_PROBE 1 GENIE_TORCH_VERSION)
list(GET GENIE_TORCH_PROBE 2 GENIE_TORCH_CUDA)
list(GET GENIE_TORCH_PROBE 3 GENIE_TORCH_ABI)
set(GENIE_TORCH_LIB ${GENIE_TORCH_DIR}/lib)
message(STATUS "torch ${GENIE_TORCH_VERSION} in ${GENIE_TORCH_DIR}")

add_library(genie_torch INTERFACE)
target_include_directories(genie_torch SYSTEM INTERFACE
  ${GENIE_TORCH_DIR}/include ${GENIE_TORCH_DIR}/include/torch/csrc/api/include)
# USE_DISTRIBUTED opens the c10d headers; _GLIBCXX_USE_CXX11_ABI must be torch's own.
target_compile_definitions(genie_torch INTERFACE USE_DISTRIBUTED _GLIBCXX_USE_CXX11_ABI=${GENIE_TORCH_ABI})
# libstdc++ comes first: libtorch.so of the CUDA wheels exports an older copy of std::filesystem (torch 2.11), and
# whichever library is listed first provides the symbol; with that copy, remove_all jumps to address 0.
target_link_libraries(genie_torch INTERFACE
  -Wl,--push-state,--no-as-needed stdc++ -Wl,--pop-state
  -Wl,--no-as-needed ${GENIE_TORCH_LIB}/libtorch.so ${GENIE_TORCH_LIB}/libtorch_cpu.so ${GENIE_TORCH_LIB}/libc10.so
  -Wl,-rpath-link,${GENIE_TORCH_LIB})

add_library(genie_torch_python INTERFACE)
target_link_libraries(genie_torch_python INTERFACE genie_torch ${GENIE_TORCH_LIB}/libtorch_python.so)

# at::parallel_for is a header template and serial without -fopenmp; the runtime must be the one torch loads.
file(GLOB GENIE_GOMP ${GENIE_TORCH_LIB}/libgomp*.so*)
if(GENIE_GOMP)
  list(GET GENIE_GOMP 0 GENIE_GOMP)
  target_link_libraries(genie_torch INTERFACE ${GENIE_GOMP})
endif()
target_compile_options(genie_torch INTERFACE $<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-fopenmp>)
