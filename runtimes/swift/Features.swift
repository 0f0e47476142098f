// Inputs from files beside the model, and outputs as the report has them.
import CoreML
import CoreVideo
import Foundation

struct Feature: Decodable {
    let name: String
    let kind: String
    let file: String
    let dtype: String
    let shape: [Int]
}

struct Output: Encodable {
    var shape: [Int] = []
    /// Float32, little endian, in rows.
    var data: String?
    var text: String?
    var classes: [String: Double]?
}

func provider(_ inputs: [Feature], folder: URL) throws -> MLFeatureProvider {
    var values: [String: MLFeatureValue] = [:]
    for input in inputs {
        let bytes = try Data(contentsOf: folder.appendingPathComponent(input.file))
        values[input.name] = input.kind == "image" ? try picture(input, bytes) : try tensor(input, bytes)
    }
    return try MLDictionaryFeatureProvider(dictionary: values)
}

private func tensor(_ input: Feature, _ bytes: Data) throws -> MLFeatureValue {
    let kinds: [String: MLMultiArrayDataType] = ["float32": .float32, "float16": .float16, "int32": .int32]
    guard let kind = kinds[input.dtype] else { throw Failure.setting("no arrays of \(input.dtype)") }
    let array = try MLMultiArray(shape: input.shape.map { NSNumber(value: $0) }, dataType: kind)
    array.withUnsafeMutableBytes { buffer, _ in _ = bytes.copyBytes(to: buffer) }
    return MLFeatureValue(multiArray: array)
}

/// Pixels as BGRA or gray, [height, width, channels].
private func picture(_ input: Feature, _ bytes: Data) throws -> MLFeatureValue {
    let (height, width, channels) = (input.shape[0], input.shape[1], input.shape[2])
    let format = channels == 4 ? kCVPixelFormatType_32BGRA : kCVPixelFormatType_OneComponent8
    let options = [kCVPixelBufferIOSurfacePropertiesKey: [:] as CFDictionary] as CFDictionary
    var made: CVPixelBuffer?
    CVPixelBufferCreate(kCFAllocatorDefault, width, height, format, options, &made)
    guard let buffer = made else { throw Failure.setting("no picture of \(width) x \(height)") }
    CVPixelBufferLockBaseAddress(buffer, [])
    defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
    let stride = CVPixelBufferGetBytesPerRow(buffer)
    let base = CVPixelBufferGetBaseAddress(buffer)!
    bytes.withUnsafeBytes { source in
        for row in 0..<height {
            let from = source.baseAddress!.advanced(by: row * width * channels)
            memcpy(base.advanced(by: row * stride), from, width * channels)
        }
    }
    return MLFeatureValue(pixelBuffer: buffer)
}

func outputs(_ made: MLFeatureProvider) throws -> [String: Output] {
    var result: [String: Output] = [:]
    for name in made.featureNames {
        guard let value = made.featureValue(for: name) else { continue }
        var output = Output()
        switch value.type {
        case .multiArray:
            let array = value.multiArrayValue!
            output.shape = array.shape.map { $0.intValue }
            let numbers = (0..<array.count).map { array[$0].floatValue }
            output.data = numbers.withUnsafeBytes { Data($0) }.base64EncodedString()
        case .dictionary:
            output.classes = [:]
            for (key, odds) in value.dictionaryValue { output.classes!["\(key)"] = odds.doubleValue }
        case .string:
            output.text = value.stringValue
        case .int64:
            output.text = String(value.int64Value)
        default:
            throw Failure.setting("output \(name) has a type that is not reported")
        }
        result[name] = output
    }
    return result
}
