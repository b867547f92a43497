# cmake -DBUILD=... -DSOURCE=... -DWORK=... -DCOMPILER=... -DGENERATOR=... -P run.cmake
function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ERROR_IS_FATAL ANY OUTPUT_VARIABLE output ECHO_OUTPUT_VARIABLE)
  set(output "${output}" PARENT_SCOPE)
endfunction()

function(expect pattern)
  if(NOT output MATCHES "${pattern}")
    message(FATAL_ERROR "found no '${pattern}' in: ${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/first)
# Nothing installed may depend on where it was built or first installed.
file(RENAME ${WORK}/first ${WORK}/prefix)
file(GLOB_RECURSE package_files ${WORK}/prefix/*.cmake)
foreach(path IN LISTS package_files)
  file(READ ${path} content)
  foreach(folder ${SOURCE} ${WORK}/first)
    string(FIND "${content}" "${folder}" at)
    if(NOT at EQUAL -1)
      message(FATAL_ERROR "${path} mentions ${folder}")
    endif()
  endforeach()
endforeach()

run(${CMAKE_COMMAND} -S ${SOURCE}/examples -B ${WORK}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/prefix
    -DCMAKE_CXX_COMPILER=${COMPILER})
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/quickstart ${SOURCE}/tests/data/tiny-llama ${SOURCE}/tests/data/tiny-llama/heldout.txt)
expect("The captain of the ship said that [^\n]+")
run(${WORK}/build/qat ${SOURCE}/tests/data/tiny-llama ${SOURCE}/tests/data/tiny-llama/heldout.txt ${WORK}/tiny-int4)
expect("21 layers in int4, the same bits\n")

run(${WORK}/prefix/bin/nibble --version)
expect("^nibble [0-9]+\\.[0-9]+\\.[0-9]+\n$")
