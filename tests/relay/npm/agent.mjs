// What a CopilotKit page gets: the agent of `@ag-ui/client`, with its verifier in the way.
import { HttpAgent } from '@ag-ui/client';

const [url] = process.argv.slice(2);
const told = { events: [], errors: [], thrown: null };
const agent = new HttpAgent({
  url,
  threadId: 'thread',
  initialMessages: [{ id: 'question', role: 'user', content: 'hello' }],
});
try {
  await agent.runAgent(
    { runId: 'run' },
    {
      onEvent: ({ event }) => void told.events.push(event.type),
      onRunErrorEvent: ({ event }) => void told.errors.push(event.message),
      onRunFinishedEvent: ({ outcome, pendingToolCallIds, event }) =>
        void (told.finish = { outcome, pendingToolCallIds, usage: event.usage }),
      onCustomEvent: ({ event }) => void (told[event.name] = event.value),
    },
  );
} catch (error) {
  told.thrown = error.message;
}
console.log(JSON.stringify({ ...told, messages: agent.messages }));
