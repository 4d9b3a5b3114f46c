# What turns record_writer.py into C loops when it is compiled; the source is record_writer.py alone.
cimport cython

cdef extern from *:
    """
    #include <string.h>

    #define frieda_put_bytes(target, position, data, size) \
        memcpy((target) + (position), (data), (size_t)(size))

    #define frieda_take_bytes(target, position, size) \
        PyBytes_FromStringAndSize((const char *)(target) + (position), (size))
    """
    bytes _take_bytes "frieda_take_bytes" (unsigned char*, Py_ssize_t, Py_ssize_t)
    void _put_bytes "frieda_put_bytes" (unsigned char*, Py_ssize_t, const unsigned char*, Py_ssize_t)

cdef long long _OLDEST_MS
cdef long long _LATEST_MS
cdef Py_ssize_t _MAX_FIXED_BYTES

cdef class RecordBuffer:
    cdef bytearray _buffer
    cdef Py_ssize_t _capacity
    cdef readonly Py_ssize_t size_bytes
    cdef readonly Py_ssize_t record_count
    cdef readonly long long first_timestamp_ms
    cdef readonly long long max_timestamp_ms

    @cython.locals(
        target="unsigned char*", position=Py_ssize_t, delta="long long", key_size=Py_ssize_t,
        value_size=Py_ssize_t, encoded_headers=bytes, headers_size=Py_ssize_t, needed=Py_ssize_t,
        body_size=Py_ssize_t,
    )
    cpdef Py_ssize_t append(
        self, long long timestamp_ms, bytes key, bytes value, object headers=*
    ) except -1

    @cython.locals(
        target="unsigned char*", position=Py_ssize_t, delta="long long", delta_size=Py_ssize_t,
        capacity=Py_ssize_t, count=Py_ssize_t, index=Py_ssize_t, offset_delta=Py_ssize_t, value=bytes,
        size=Py_ssize_t, body_size=Py_ssize_t, end=Py_ssize_t,
    )
    cpdef Py_ssize_t append_values(
        self, long long timestamp_ms, object values, Py_ssize_t start, Py_ssize_t limit_bytes
    ) except -1

    cpdef bytearray finish(self)
    cdef long long _timestamp_delta(self, long long timestamp_ms) except? -1
    cdef void _note(self, long long timestamp_ms, Py_ssize_t added, Py_ssize_t size_bytes) noexcept
    @cython.locals(capacity=Py_ssize_t)
    cdef int _grow(self, Py_ssize_t least) except -1

@cython.locals(
    pairs=list, bound=Py_ssize_t, out=bytearray, target="unsigned char*", position=Py_ssize_t,
    encoded=bytes, value=bytes, size=Py_ssize_t,
)
cpdef bytes encode_headers(object headers)

@cython.locals(rest="unsigned long long", size=Py_ssize_t)
cdef Py_ssize_t _varint_size(long long value) noexcept

@cython.locals(rest="unsigned long long")
cdef Py_ssize_t _put_varint(unsigned char* target, Py_ssize_t position, long long value) noexcept


@cython.locals(
    encoded_headers=bytes, headers_size=Py_ssize_t, key_size=Py_ssize_t, value_size=Py_ssize_t,
    body_size=Py_ssize_t, size=Py_ssize_t, batch=bytearray, target="unsigned char*", position=Py_ssize_t,
)
cpdef bytearray batch_of_one(
    long long timestamp_ms, bytes key, bytes value, object headers, long long producer_id,
    long long producer_epoch, long long base_sequence
)

cdef void _put_number(
    unsigned char* target, Py_ssize_t position, Py_ssize_t size, long long value
) noexcept
cdef object _bad_timestamp(long long timestamp_ms)
cdef object _too_large(Py_ssize_t size_bytes)
