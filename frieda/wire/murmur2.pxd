# What turns murmur2.py into 32-bit arithmetic when it is compiled.
cimport cython

cdef unsigned int _MASK
cdef unsigned int _SEED
cdef unsigned int _M

@cython.locals(
    p="const unsigned char*", size=Py_ssize_t, position=Py_ssize_t, tail=Py_ssize_t,
    h="unsigned int", k="unsigned int",
)
cpdef unsigned int murmur2(bytes data) except? 0

cpdef unsigned int partition_for_key(bytes key, Py_ssize_t partition_count) except? 0
