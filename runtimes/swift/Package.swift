// swift-tools-version: 5.9
// An app that measures one Core ML model on the iPhone it runs on. Open the folder in Xcode, choose a team, press Run.
import AppleProductTypes
import PackageDescription

let package = Package(
    name: "Benchmark",
    platforms: [.iOS("@IOS@")],
    products: [
        .iOSApplication(
            name: "Benchmark",
            targets: ["Benchmark"],
            bundleIdentifier: "@BUNDLE@",
            teamIdentifier: "@TEAM@",
            displayVersion: "1.0",
            bundleVersion: "1",
            supportedDeviceFamilies: [.phone],
            supportedInterfaceOrientations: [.portrait]
        )
    ],
    targets: [
        .executableTarget(name: "Benchmark", path: "Sources", resources: [.copy("Resources")])
    ]
)
