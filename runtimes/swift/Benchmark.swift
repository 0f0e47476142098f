// The protocol: rounds of inferences, the model loaded anew for each round, some inferences before the clock runs.
// All times are reported; means are taken where the result is read.
import CoreML
import Foundation

struct Settings: Decodable {
    let model: String
    let digest: String
    let rounds: Int
    let inferences: Int
    let warmup: Int
    let units: String
    let inputs: [Feature]
}

struct Round: Encodable {
    let loadMs: Double
    let ms: [Double]
    let thermalState: Int
}

struct Place: Encodable {
    let name: String
    let kind: String
    let device: String
    let share: Double?
}

struct Report: Encodable {
    var format = 1
    var digest = ""
    var device = ""
    var system = ""
    var units = ""
    var compileMs = 0.0
    var rounds: [Round] = []
    var outputs: [String: Output] = [:]
    var placement: [Place] = []
    var error: String?
}

enum Benchmark {
    /// The report as JSON, with all rounds that were finished even where a later one fails.
    static func report(progress: (String) -> Void) async -> String {
        var report = Report()
        do {
            try await measure(into: &report, progress: progress)
        } catch {
            report.error = String(describing: error)
        }
        return publish(report)
    }

    /// Print a report; the computer that started the app reads the last one, even if the phone is gone by then.
    @discardableResult
    private static func publish(_ report: Report) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        guard let data = try? encoder.encode(report) else { return "the report holds numbers that JSON has not" }
        let text = String(decoding: data, as: UTF8.self)
        print("BENCHMARK BEGIN\n\(text)\nBENCHMARK END")
        fflush(stdout)
        return text
    }

    private static func measure(into report: inout Report, progress: (String) -> Void) async throws {
        let resources = try folder()
        let text = try Data(contentsOf: resources.appendingPathComponent("benchmark.json"))
        let settings = try JSONDecoder().decode(Settings.self, from: text)
        report.digest = settings.digest
        report.device = machine()
        report.system = ProcessInfo.processInfo.operatingSystemVersionString
        report.units = settings.units
        let configuration = MLModelConfiguration()
        configuration.computeUnits = try computeUnits(settings.units)
        let began = now()
        let compiled = try await MLModel.compileModel(at: resources.appendingPathComponent(settings.model))
        report.compileMs = now() - began
        defer { try? FileManager.default.removeItem(at: compiled) }
        let features = try provider(settings.inputs, folder: resources)
        for number in 1...settings.rounds {
            let (round, outputs) = try autoreleasepool {
                try oneRound(settings, compiled, configuration, features)
            }
            report.rounds.append(round)
            report.outputs = outputs
            let median = round.ms.sorted()[round.ms.count / 2]
            publish(report)
            progress("round \(number) of \(settings.rounds): median \(String(format: "%.3f", median)) ms")
        }
        report.placement = try await placement(compiled, configuration)
    }

    private static func oneRound(
        _ settings: Settings, _ compiled: URL, _ configuration: MLModelConfiguration, _ features: MLFeatureProvider
    ) throws -> (Round, [String: Output]) {
        let loading = now()
        let model = try MLModel(contentsOf: compiled, configuration: configuration)
        let loaded = now() - loading
        var last = try model.prediction(from: features)
        for _ in 1..<max(1, settings.warmup) { last = try model.prediction(from: features) }
        var times: [Double] = []
        times.reserveCapacity(settings.inferences)
        for _ in 0..<settings.inferences {
            try autoreleasepool {
                let began = now()
                last = try model.prediction(from: features)
                times.append(now() - began)
            }
        }
        let state = ProcessInfo.processInfo.thermalState.rawValue
        return (Round(loadMs: loaded, ms: times, thermalState: state), try outputs(last))
    }

    /// Where Core ML means to run each operation; empty before iOS 17.4.
    private static func placement(_ compiled: URL, _ configuration: MLModelConfiguration) async throws -> [Place] {
        guard #available(iOS 17.4, *) else { return [] }
        let plan = try await MLComputePlan.load(contentsOf: compiled, configuration: configuration)
        guard case .program(let program) = plan.modelStructure, let main = program.functions["main"] else { return [] }
        return main.block.operations.compactMap { operation in
            guard let usage = plan.deviceUsage(for: operation) else { return nil }
            let device: String
            switch usage.preferred {
            case .cpu: device = "CPU"
            case .gpu: device = "GPU"
            case .neuralEngine: device = "Neural Engine"
            @unknown default: device = "unknown"
            }
            let kind = operation.operatorName.split(separator: ".").last.map(String.init) ?? ""
            let share = plan.estimatedCost(of: operation)?.weight
            return Place(name: operation.outputs.first?.name ?? "", kind: kind, device: device, share: share)
        }
    }

    /// Where the model lies: in the app, or in the bundle that Swift's package manager makes of a target's resources.
    private static func folder() throws -> URL {
        let main = Bundle.main.resourceURL!
        let inside = try FileManager.default.contentsOfDirectory(at: main, includingPropertiesForKeys: nil)
        let bundles = inside.filter { $0.pathExtension == "bundle" }
        for place in [main] + bundles {
            let found = place.appendingPathComponent("Resources")
            let settings = found.appendingPathComponent("benchmark.json").path
            if FileManager.default.fileExists(atPath: settings) { return found }
        }
        throw Failure.setting("the app holds no benchmark.json")
    }

    private static func computeUnits(_ name: String) throws -> MLComputeUnits {
        switch name {
        case "all": return .all
        case "cpu": return .cpuOnly
        case "cpu+gpu": return .cpuAndGPU
        case "cpu+ne": return .cpuAndNeuralEngine
        default: throw Failure.setting("there are no compute units '\(name)'")
        }
    }

    private static func now() -> Double {
        Double(DispatchTime.now().uptimeNanoseconds) / 1e6
    }

    private static func machine() -> String {
        var system = utsname()
        uname(&system)
        return withUnsafeBytes(of: &system.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}

enum Failure: Error {
    case setting(String)
}
