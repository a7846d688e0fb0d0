"""Kotlin for Android, on the package onnxruntime-android."""

from typing import Any

from deploy.manifest import Manifest
from deploy.snippet import SNIPPETS, Filled, Snippet, constants, facts, feed_of, quoted

_FILE = Filled("""\
@comment
//
// Not compiled here. Gradle: implementation("com.microsoft.onnxruntime:onnxruntime-android:1.23.0"), or newer.
// val model = Model(context.assets.open(Model.FILE).use { it.readBytes() })
// val (label, probability) = model.answer(input)

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import kotlin.math.exp

object Preprocessing {
@constants
}
@feed
class Model(bytes: ByteArray) : AutoCloseable {
    companion object {
        const val FILE = @file
        const val INPUT = @input
        const val OUTPUT = @output
        val SHAPE = longArrayOf(@shape)
        val CLASSES = @classes
    }

    private val environment = OrtEnvironment.getEnvironment()
    private val session = environment.createSession(bytes)

    /** Returns the logits of one input; its shape differs where an axis is free. */
    fun logits(input: @array, shape: LongArray = SHAPE): FloatArray {
        val count = shape.fold(1L) { product, size -> product * size }
        require(input.size.toLong() == count) { "the input must have $count values, got ${input.size}" }
        @tensor.use { tensor ->
            session.run(mapOf(INPUT to tensor), setOf(OUTPUT)).use { result ->
                val buffer = (result[0] as OnnxTensor).floatBuffer
                return FloatArray(buffer.remaining()).also { buffer.get(it) }
            }
        }
    }

    /** Returns the first class of one input and its probability. */
    fun answer(input: @array, shape: LongArray = SHAPE): Pair<String, Float> {
        val logits = logits(input, shape)
        val first = logits.indices.maxByOrNull { logits[it] }!!
        val total = logits.sumOf { exp((it - logits[first]).toDouble()) }
        return CLASSES[first] to (1 / total).toFloat()
    }

    override fun close() = session.close()
}
""")
_FEEDS = {
    "image": """
/** Returns the input of an image already resized and cropped: levels from 0 to 255, row by row, channels last. */
fun inputOf(levels: IntArray): FloatArray {
    val channels = Preprocessing.MEAN.size
    val area = levels.size / channels
    return FloatArray(levels.size) { place ->
        val channel = place / area
        val level = levels[place % area * channels + channel]
        ((level * Preprocessing.SCALE - Preprocessing.MEAN[channel]) / Preprocessing.STD[channel]).toFloat()
    }
}
""",
    "window": """
/** Returns the input of samples at the model's rate, in order of time, each the channels in their order. */
fun inputOf(samples: List<FloatArray>): FloatArray = samples.flatMap { it.asIterable() }.toFloatArray()
""",
    "": "",
}
_ARRAYS = {"float32": "FloatArray", "uint8": "ByteArray"}
_TENSORS = {
    "float32": "OnnxTensor.createTensor(environment, FloatBuffer.wrap(input), shape)",
    "uint8": "OnnxTensor.createTensor(environment, ByteBuffer.wrap(input), shape, OnnxJavaType.UINT8)",
}


@SNIPPETS.register("kotlin")
class Kotlin(Snippet):
    """A file for an Android project."""

    file_name = "snippet.kt"

    def text(self, manifest: Manifest) -> str:
        """Return the file's source."""
        lines = [f"    val {name.upper()} = {_literal(value)}" for name, value in constants(manifest).items()]
        dtype = manifest.input.dtype
        return _FILE.substitute(
            {
                **facts(manifest, _literal),
                "constants": "\n".join(lines),
                "feed": _FEEDS[feed_of(manifest)],
                "array": _ARRAYS[dtype],
                "tensor": _TENSORS[dtype],
            }
        )


def _literal(value: Any) -> str:
    if isinstance(value, list):
        kind = "doubleArrayOf" if isinstance(value[0], float) else "listOf"
        return f"{kind}({', '.join(map(_literal, value))})"
    return quoted(value, _escaped) if isinstance(value, str) else repr(value)


def _escaped(character: str) -> str:
    """Return a character as UTF-16 code units, the only form Kotlin has."""
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
