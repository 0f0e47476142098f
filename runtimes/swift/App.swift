// One screen: it starts the benchmark, shows each round, and ends with the result as JSON to copy.
import SwiftUI
import UIKit

@main
struct BenchmarkApp: App {
    var body: some Scene {
        WindowGroup { Screen() }
    }
}

struct Screen: View {
    @State private var lines: [String] = []

    var body: some View {
        ScrollView {
            Text(lines.joined(separator: "\n"))
                .font(.system(.footnote, design: .monospaced))
                .textSelection(.enabled)
                .frame(maxWidth: .infinity, alignment: .leading)
                .padding()
        }
        .task { await measure() }
    }

    @MainActor
    private func measure() async {
        UIApplication.shared.isIdleTimerDisabled = true
        let updates = AsyncStream<String> { stream in
            Task.detached(priority: .userInitiated) {
                let text = await Benchmark.report { _ = stream.yield($0) }
                stream.yield(text)
                stream.finish()
            }
        }
        for await line in updates { lines.append(line) }
        UIApplication.shared.isIdleTimerDisabled = false
        if ProcessInfo.processInfo.arguments.contains("exit") { exit(0) }
    }
}
