# What `cmake --install` installs: the program, the static library, the headers and a CMake package.
include(CMakePackageConfigHelpers)

set(NIBBLE_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
configure_package_config_file(cmake/nibbleConfig.cmake.in nibbleConfig.cmake INSTALL_DESTINATION ${NIBBLE_PACKAGE_DIR})
# Below 1.0 a minor version may change the interface.
write_basic_package_version_file(nibbleConfigVersion.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS nibble EXPORT nibbleTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS nibble_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/nibble DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT nibbleTargets NAMESPACE nibble:: DESTINATION ${NIBBLE_PACKAGE_DIR})
install(FILES ${PROJECT_BINARY_DIR}/nibbleConfig.cmake ${PROJECT_BINARY_DIR}/nibbleConfigVersion.cmake
        DESTINATION ${NIBBLE_PACKAGE_DIR})
