"""Swift for iOS, on onnxruntime's Swift package or the pod onnxruntime-objc."""

from typing import Any

from deploy.manifest import Manifest
from deploy.snippet import SNIPPETS, Filled, Snippet, constants, facts, feed_of, quoted

_FILE = Filled("""\
@comment
//
// Not compiled here. Swift package: github.com/microsoft/onnxruntime-swift-package-manager, product onnxruntime; with
// CocoaPods (pod onnxruntime-objc) the import is onnxruntime_objc.
// let model = try Model(path: Bundle.main.bundlePath + "/" + Model.file)
// let (label, probability) = try model.answer(input)

import Foundation
import OnnxRuntimeBindings

enum Preprocessing {
@constants
}
@feed
final class Model {
  static let file = @file
  static let input = @input
  static let output = @output
  static let shape: [NSNumber] = [@shape]
  static let classes: [String] = @classes

  private let environment: ORTEnv
  private let session: ORTSession

  init(path: String) throws {
    environment = try ORTEnv(loggingLevel: .warning)
    session = try ORTSession(env: environment, modelPath: path, sessionOptions: nil)
  }

  /// Returns the logits of one input; its shape differs where an axis is free.
  func logits(_ input: [@element], shape: [NSNumber] = Model.shape) throws -> [Float] {
    let count = shape.reduce(1) { $0 * $1.intValue }
    precondition(input.count == count, "the input must have \\(count) values, got \\(input.count)")
    let data = NSMutableData(bytes: input, length: input.count * MemoryLayout<@element>.stride)
    let value = try ORTValue(tensorData: data, elementType: @kind, shape: shape)
    let found = try session.run(withInputs: [Model.input: value], outputNames: [Model.output], runOptions: nil)
    let bytes = try found[Model.output]!.tensorData() as Data
    return bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }

  /// Returns the first class of one input and its probability.
  func answer(_ input: [@element], shape: [NSNumber] = Model.shape) throws -> (label: String, probability: Float) {
    let logits = try self.logits(input, shape: shape)
    let first = logits.indices.max { logits[$0] < logits[$1] }!
    let total = logits.reduce(Float(0)) { $0 + exp($1 - logits[first]) }
    return (Model.classes[first], 1 / total)
  }
}
""")
_FEEDS = {
    "image": """
/// Returns the input of an image already resized and cropped: levels from 0 to 255, row by row, channels last.
func inputOf(_ levels: [UInt8]) -> [Float] {
  let channels = Preprocessing.mean.count
  let area = levels.count / channels
  return levels.indices.map { place in
    let channel = place / area
    let level = Double(levels[place % area * channels + channel])
    return Float((level * Preprocessing.scale - Preprocessing.mean[channel]) / Preprocessing.std[channel])
  }
}
""",
    "window": """
/// Returns the input of samples at the model's rate, in order of time, each the channels in their order.
func inputOf(_ samples: [[Float]]) -> [Float] {
  samples.flatMap { $0 }
}
""",
    "": "",
}
_ELEMENTS = {"float32": "Float", "uint8": "UInt8"}
_KINDS = {"float32": ".float", "uint8": ".uInt8"}


@SNIPPETS.register("swift")
class Swift(Snippet):
    """A file for an Xcode project."""

    file_name = "snippet.swift"

    def text(self, manifest: Manifest) -> str:
        """Return the file's source."""
        lines = [f"  static let {_camel(name)} = {_literal(value)}" for name, value in constants(manifest).items()]
        dtype = manifest.input.dtype
        return _FILE.substitute(
            {
                **facts(manifest, _literal),
                "constants": "\n".join(lines),
                "feed": _FEEDS[feed_of(manifest)],
                "element": _ELEMENTS[dtype],
                "kind": _KINDS[dtype],
            }
        )


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return quoted(value, lambda character: f"\\u{{{ord(character):x}}}") if isinstance(value, str) else repr(value)
