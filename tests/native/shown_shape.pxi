# Shows shapes: what is recognised after one event was learnt.

cimport relay.native.shape as native_shape
from relay.native.memory cimport Memory as ShapeMemory, memory_blocks as shape_blocks, memory_init as shape_memory_init

SHAPE_BYTES = <int>native_shape.SHAPE_BYTES
SHAPE_PATIENCE = <int>native_shape.SHAPE_PATIENCE
SHAPE_SLOTS = <int>native_shape.SHAPE_SLOTS


cdef class Shapes:
    """The shapes of one feed."""

    cdef native_shape.Shapes shapes
    cdef ShapeMemory memory
    cdef int feed

    def __init__(self, int feed):
        self.feed = feed
        self.shapes.slots = NULL
        shape_memory_init(&self.memory)

    def __dealloc__(self):
        native_shape.shapes_free(&self.shapes, &self.memory)

    def learn(self, const uint8_t[:] event):
        """As ingest does with an event that was not recognised and is fine. Whether it was learnt."""
        return bool(native_shape.shape_learn(
            &self.shapes, &self.memory, self.feed, guard_end(event), <size_t>event.shape[0]))

    def recognised(self, const uint8_t[:] event):
        return native_shape.shape_recognised(&self.shapes, guard_end(event), <size_t>event.shape[0]) != NULL

    def free(self):
        """Blocks held afterwards."""
        native_shape.shapes_free(&self.shapes, &self.memory)
        return shape_blocks(&self.memory)
