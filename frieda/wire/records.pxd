# What turns records.py into C loops when it is compiled; the source is records.py alone.
cimport cython

cdef extern from *:
    """
    /* A Record is a tuple of another type with the same layout (records.py checks that), so the tuple of
     * its fields, just made and not yet seen by anyone, becomes one by changing its type: measured 30 ns
     * against 115 ns of tuple.__new__(Record, fields), which copies it. And since a record holds only
     * strings, numbers, bytes and a tuple of such, it can't be part of a cycle: untracked, a consumer's
     * hundred thousand live records are no work for the cyclic collector (130 ns against 340 a record). */
    static CYTHON_INLINE PyObject *frieda_new_record(PyObject *type, PyObject *fields) {
    #if CYTHON_COMPILING_IN_CPYTHON && !defined(Py_GIL_DISABLED)
        if (Py_REFCNT(fields) == 1) {
            PyObject_GC_UnTrack(fields);
            Py_INCREF(type);
            Py_SET_TYPE(fields, (PyTypeObject *)type);
            Py_INCREF(fields);
            return fields;
        }
    #endif
        PyObject *arguments = PyTuple_Pack(1, fields);
        if (!arguments) return NULL;
        PyObject *record = PyTuple_Type.tp_new((PyTypeObject *)type, arguments, NULL);
        Py_DECREF(arguments);
        return record;
    }
    """
    object _new_record "frieda_new_record" (object, tuple)

cdef long long _OLDEST_MS
cdef long long _LATEST_MS
cdef long long _LAST_OFFSET

@cython.locals(
    p="const unsigned char*", end=Py_ssize_t, position=Py_ssize_t, record_end=Py_ssize_t,
    index=Py_ssize_t, number="unsigned long long", second="unsigned int", size=Py_ssize_t,
    key_start=Py_ssize_t, key_size=Py_ssize_t, value_start=Py_ssize_t, value_size=Py_ssize_t,
    offset_delta="long long", previous_delta="long long", timestamp_ms="long long", newest_ms="long long",
    record_type=object, headers=object,
)
cpdef long long read_records(
    bytes data, Py_ssize_t start, Py_ssize_t count, long long last_offset_delta, str topic,
    object partition, long long base_offset, long long base_timestamp_ms,
    long long append_timestamp_ms, long long from_offset, list out
) except? -2

@cython.locals(count=Py_ssize_t, size=Py_ssize_t, headers=list, key=str)
cdef tuple _read_headers(
    bytes data, Py_ssize_t position, Py_ssize_t record_end, Py_ssize_t index, long long base_offset
)

@cython.locals(number="unsigned long long")
cdef (Py_ssize_t, Py_ssize_t) _read_length(const unsigned char* data, Py_ssize_t position) noexcept

@cython.locals(number="unsigned long long", shift=int, byte="unsigned long long")
cdef (unsigned long long, Py_ssize_t) _read_varint(const unsigned char* p, Py_ssize_t position) noexcept

cdef object _invalid(Py_ssize_t index, long long base_offset, str why)
