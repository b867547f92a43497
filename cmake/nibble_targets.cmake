# The compile settings that every target shares, and the three kinds of target: a layer of the library, a test, a
# benchmark. Settings hang on an interface target, never on globals.

add_library(nibble_settings INTERFACE)
target_compile_features(nibble_settings INTERFACE cxx_std_20)
target_include_directories(nibble_settings INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
# No contraction: a * b + c rounds twice on every instruction set, so results do not depend on the one chosen.
target_compile_options(nibble_settings INTERFACE -Wall -Wextra -Wconversion -ffp-contract=off
                       "$<$<CXX_COMPILER_ID:GNU>:-Wno-restrict;-Wno-maybe-uninitialized>"  # GCC 12 warns about its own std::string
                       $<$<BOOL:${NIBBLE_WERROR}>:-Werror>)
if(NIBBLE_SANITIZE)
  target_compile_options(nibble_settings INTERFACE -fsanitize=${NIBBLE_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(nibble_settings INTERFACE -fsanitize=${NIBBLE_SANITIZE})
endif()

# nibble_layer(NAME file... [DEPS target...]): the objects of one folder of src/, as target nibble_NAME.
function(nibble_layer name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  add_library(nibble_${name} OBJECT ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(nibble_${name} PRIVATE nibble_settings ${ARG_DEPS})
endfunction()

# nibble_test(NAME file... [LAYERS layer...] [LABELS label...]): one test program of tests/NAME.
function(nibble_test name)
  cmake_parse_arguments(ARG "" "" "LAYERS;LABELS" ${ARGN})
  add_executable(test_${name} ${ARG_UNPARSED_ARGUMENTS})
  list(TRANSFORM ARG_LAYERS PREPEND nibble_)
  target_link_libraries(test_${name} PRIVATE nibble_settings ${ARG_LAYERS} nibble_third_party GTest::gtest
                                             GTest::gtest_main)
  target_include_directories(test_${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(test_${name} PRIVATE NIBBLE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  # What is tested is compiled as users get it; the tests themselves are only compiled faster.
  target_compile_options(test_${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  add_test(NAME ${name} COMMAND test_${name})
  set(timeout 300)
  if(NIBBLE_SANITIZE)
    set(timeout 900)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout} LABELS "${ARG_LABELS}")
endfunction()
