"""What vispy does not do for OpenGL without a graphics card.

vispy deletes the programs of a layer that is removed, also the one that has drawn last. Mesa's
software renderer (llvmpipe) still uses that one for the next drawing and crashes with a
segmentation fault (seen with Mesa 22.3 and vispy 0.17). Programs are therefore deleted only after
another one has drawn.
"""

from __future__ import annotations

from typing import Any

from vispy.gloo import gl, glir

SOFTWARE_RENDERERS = (
    "llvmpipe",
    "softpipe",
    "swrast",
    "swiftshader",
    "gdi generic",
    "basic render",
)
_PENDING = "napari_dycon_pending_programs"  # key in vispy's table for one OpenGL context
_renderers: set[str] = set()  # that have drawn


def defer_deletions() -> None:
    """Let vispy delete programs later; calling it again changes nothing."""
    program_type = glir.GlirProgram
    if getattr(program_type, "defers_deletions", False):
        return
    program_type.defers_deletions = True
    draw = program_type.draw

    def delete(self: Any) -> None:
        self._parser.env.setdefault(_PENDING, []).append(self._handle)

    def draw_and_delete(self: Any, *arguments: Any, **settings: Any) -> None:
        draw(self, *arguments, **settings)
        for handle in self._parser.env.pop(_PENDING, ()):
            gl.glDeleteProgram(handle)
        if not _renderers:  # only a drawing canvas can say
            _renderers.add(str(gl.glGetParameter(gl.GL_RENDERER)).lower())

    program_type.delete, program_type.draw = delete, draw_and_delete


def is_software_renderer() -> bool:
    """Whether OpenGL draws on the processor, which is slow in 3D; known after the first drawing."""
    return any(word in name for word in SOFTWARE_RENDERERS for name in _renderers)
