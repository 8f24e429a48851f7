import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;
import java.util.stream.Stream;

/** Java's own HttpClient at its defaults: it offers HTTP/2 with every request, and does not know the answer beforehand. */
public class JavaClient {
    static final String TOO_LONG = "1 ".repeat(30_000);
    static String url, key, model;
    static final HttpClient client = HttpClient.newHttpClient();

    interface Check {
        void run() throws Exception;
    }

    static String body(String content, int tokens, boolean stream) {
        return "{\"model\": \"%s\", \"max_tokens\": %d, \"stream\": %b, \"messages\": [{\"role\": \"user\", \"content\": \"%s\"}]}"
            .formatted(model, tokens, stream, content);
    }

    static HttpRequest.Builder request(String base, String path) {
        return HttpRequest.newBuilder(URI.create(base + path)).header("Content-Type", "application/json")
            .header("Authorization", "Bearer " + key);
    }

    static HttpResponse<String> ask(String path, String body) throws Exception {
        return client.send(request(url, path).POST(HttpRequest.BodyPublishers.ofString(body)).build(), BodyHandlers.ofString());
    }

    static List<String> stream(String base, int tokens) throws Exception {
        var post = request(base, "/chat/completions").POST(HttpRequest.BodyPublishers.ofString(body("Hi", tokens, true))).build();
        try (Stream<String> lines = client.send(post, BodyHandlers.ofLines()).body()) {
            return lines.filter(line -> line.startsWith("data: ")).toList();
        }
    }

    static void expect(boolean truth, Object found) {
        if (!truth) throw new AssertionError(String.valueOf(found));
    }

    static void expect(HttpResponse<String> response, int status, String text) {
        expect(response.statusCode() == status && response.body().contains(text), response.statusCode() + " " + response.body());
    }

    static void check(String name, Check check) {
        try {
            check.run();
            System.out.println("{\"check\": \"%s\", \"passed\": true}".formatted(name));
        } catch (Exception | AssertionError error) {
            error.printStackTrace();
            var message = error.toString().replace("\\", "/").replace("\"", "'").replaceAll("\\s+", " ");
            message = message.substring(0, Math.min(message.length(), 500));
            System.out.println("{\"check\": \"%s\", \"passed\": false, \"message\": \"%s\"}".formatted(name, message));
        }
    }

    public static void main(String[] arguments) {
        url = arguments[0];
        key = arguments[1];
        model = arguments[2];
        String slow = System.getenv().getOrDefault("SLOW_URL", url);
        System.out.println("{\"versions\": {\"java\": \"%s\"}}".formatted(System.getProperty("java.version")));
        check("chat: models", () -> expect(
            client.send(request(url, "/models").build(), BodyHandlers.ofString()), 200, "\"" + model + "\""));
        check("chat: a reply, and the next one on its connection", () -> {
            for (int i = 0; i < 2; i++) expect(ask("/chat/completions", body("Hi", 60, false)), 200, "\"finish_reason\"");
        });
        check("chat: several at once", () -> {
            var post = request(url, "/chat/completions").POST(HttpRequest.BodyPublishers.ofString(body("Hi", 60, false))).build();
            var replies = Stream.generate(() -> client.sendAsync(post, BodyHandlers.ofString())).limit(8).toList();
            for (var reply : replies) expect(reply.get(), 200, "\"finish_reason\"");
        });
        check("chat: a long question", () -> expect(ask("/chat/completions", body("1 ".repeat(3000), 60, false)), 200, "\"usage\""));
        check("stream: a reply", () -> {
            var lines = stream(url, 60);
            expect(lines.size() > 2 && lines.get(lines.size() - 1).equals("data: [DONE]"), lines);
        });
        check("error: an unknown model", () -> expect(
            ask("/chat/completions", body("Hi", 60, false).replace(model, "nobody")), 404, "model_not_found"));
        check("error: too long", () -> expect(ask("/chat/completions", body(TOO_LONG, 60, false)), 400, "context_length_exceeded"));
        check("error: a wrong key", () -> {
            var wrong = request(url, "/models").setHeader("Authorization", "Bearer sk-wrong").build();
            expect(client.send(wrong, BodyHandlers.ofString()), 401, "invalid_api_key");
        });
        check("slow: a reply", () -> {
            var lines = stream(slow, 8);
            expect(lines.size() > 2 && lines.get(lines.size() - 1).equals("data: [DONE]"), lines);
        });
    }
}
